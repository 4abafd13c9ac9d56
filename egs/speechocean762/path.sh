# Sourced by run.sh: Python, bin/, utils/ and local/ on PATH. On a cluster, each job sources it.
. "$(dirname "${BASH_SOURCE[0]}")/../../utils/environment.sh"
export PATH=$(cd "$(dirname "${BASH_SOURCE[0]}")/local" && pwd):$PATH
