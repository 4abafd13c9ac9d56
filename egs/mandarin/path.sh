# Sourced by run.sh, and on a cluster by each job. It puts Python, bin/, utils/ and local/ on PATH.
. "$(dirname "${BASH_SOURCE[0]}")/../../utils/environment.sh"
export PATH=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/local" && pwd):$PATH
