# Sourced by bash scripts that hand paths to jobs, after parse_options.sh. Folders may have any name
# that a Kaldi table can name.
#
#   usable_paths VARIABLE …   puts ./ before paths that would be read as an option, as a symbol of the
#                             shell or as a variable of awk; a path that no table can name is an error
#   choose_job_name WORD …    sets $job to the name of an array of jobs that is in none of the words:
#                             JOB, or XJOB … where JOB is a part of a path
#   job_words WORD …          sets the array $words to these words as $cmd takes them, so that the
#                             shell of a job expands nothing in them
#   split_options TEXT        sets the array $words to the words of a text of options, in which
#                             quotes and \ keep blanks in a word as in a shell
#   option_word WORD          prints a word as split_options reads it

usable_paths() {
  local variable
  for variable in "$@"; do
    case ${!variable} in
      *$'\n'*) _unusable "${!variable//$'\n'/ }" "a line break" ;;
      *'|'*) _unusable "${!variable}" "a |, which begins a command in Kaldi's tables" ;;
    esac
    case ${!variable} in
      /* | ./* | ../*) ;;
      -* | [[:space:]]* | *[\<\>\&\;\(\)\{\}\!=]*) printf -v "$variable" './%s' "${!variable}" ;;
    esac
  done
}

_unusable() {
  echo "ERROR ($(basename "$0")) '$1': this name has $2, so it cannot be used; rename it" >&2
  exit 2
}

choose_job_name() {
  job=JOB
  while [[ "$*" == *"$job"* ]]; do job=X$job; done
}

job_words() {
  local word
  words=()
  for word in "$@"; do
    case $word in
      *\"* | *\\) ;; # $cmd puts it between single quotes
      *)
        word=${word//\\/\\\\}
        word=${word//\$/\\\$}
        word=${word//\`/\\\`}
        ;;
    esac
    words+=("$word")
  done
}

split_options() {
  local lines
  if ! lines=$(printf '%s' "$1" | xargs -r printf '%s\n' 2>/dev/null); then
    echo "ERROR ($(basename "$0")) --options: a quote is not closed in '$1'; close it" >&2
    exit 2
  fi
  words=()
  if [ -n "$lines" ]; then mapfile -t words <<< "$lines"; fi
}

option_word() {
  printf '%s' "$1" | LC_ALL=C sed 's/[^A-Za-z0-9_./=,:%@+~-]/\\&/g'
}
