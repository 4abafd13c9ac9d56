# Sourced by bash scripts: what they write appears whole, and only one of them writes a folder.
#
#   lock_folder FOLDER      make FOLDER, wait until no other script has locked it, and hold the lock
#                           until this script and the programs that it started have ended; remove
#                           what killed scripts left in FOLDER and FOLDER/log
#   temporary FILE          print the name of a new, empty file beside FILE, which only its owner
#                           may read
#   publish TEMPORARY FILE  give that file its name and the permissions of any new file
#   discard FOLDER          remove FOLDER, which is gone at once, not file by file
#   seal FILE               write the digest and the size of FILE to .FILE.sha256 beside it

_utils=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
_locks=()

lock_folder() {
  local status descriptor
  mkdir -p "$1"
  while true; do
    if [ -L "$1/.lock" ]; then
      echo "ERROR ($(basename "$0")) $1/.lock: a symbolic link, not a lock; remove it" >&2
      exit 1
    fi
    if ! { exec {descriptor}>> "$1/.lock"; } 2> /dev/null; then return; fi # the first write will fail
    status=0
    PYTHONPATH=$_utils${PYTHONPATH:+:$PYTHONPATH} \
      python3 -m pipeline.shell_lock "$(basename "$0")" "$descriptor" "$1" || status=$?
    if [ "$status" -eq 0 ]; then break; fi
    exec {descriptor}>&-
    if [ "$status" -ne 3 ]; then exit "$status"; fi
  done
  _locks+=("$1/.lock")
  trap 'rm -f "${_locks[@]}"' EXIT
}

temporary() { mktemp "$(dirname "$1")/.$(basename "$1").tmp.$(uname -n).$$.XXXXXXXX"; }

publish() {
  chmod "$(printf %o $((0666 & ~0$(umask))))" "$1"
  mv -f "$1" "$2"
}

discard() {
  local away
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then return; fi
  away=$(temporary "$1")
  rm "$away"
  mv "$1" "$away"
  rm -rf "$away"
}

seal() {
  local new
  new=$(temporary "$(dirname "$1")/.$(basename "$1").sha256")
  echo "$(sha256sum < "$1" | cut -c 1-64) $(wc -c < "$1")" > "$new"
  publish "$new" "$(dirname "$1")/.$(basename "$1").sha256"
}
