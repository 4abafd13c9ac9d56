# Sourced by bash scripts after they have set the variables of their options to the defaults:
#
#   nj=4             # makes an option --nj N
#   clean=false      # makes an option --clean true|false, because the default is one of the two
#   . parse_options.sh || exit 2
#
# It takes --name value and --name=value off the front of "$@", up to the first word that is no
# option, or "--"; "-" in a name stands for "_" in the variable. A name whose variable the script
# has not set is an error. The lines name=value of --config FILE are read first, so the command line
# wins over them; a byte order mark and carriage returns at the ends of lines are passed over. --help prints $help_message, or else the comment at the head of the script, and
# exits with 0. A command (--cmd, --train-cmd) cannot be empty. Errors exit with 2. It works under
# set -eu.

_options_fail() {
  echo "ERROR ($(basename "$0")) $1" >&2
  exit 2
}

# Prints the options of the script: the variables that it sets at the start of a line, and that are
# set now.
_options_known() {
  local _known
  sed -n 's/^\(export \)\{0,1\}\([a-z][a-zA-Z0-9_]*\)=.*/\2/p' "$0" 2>/dev/null |
    LC_ALL=C sort -u | while read -r _known; do
      if [ -n "${!_known+set}" ]; then printf ' --%s' "${_known//_/-}"; fi
    done
}

_options_help() {
  if [ -n "${help_message:-}" ]; then
    printf '%s\n' "$help_message"
  else
    awk 'NR == 1 && /^#!/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$0"
    echo "Options:$(_options_known) --config --help"
  fi
}

# Puts the name of the option "$1" into _name, and its value, from "=" or else from "$2", into
# _value; _words is how many words that took. "$3" is how many there are.
_options_split() {
  _name=${1#--}
  _words=1
  case $_name in
    *=*)
      _value=${_name#*=}
      _name=${_name%%=*}
      ;;
    *)
      if [ "$3" -lt 2 ]; then _options_fail "--$_name needs a value"; fi
      _value=$2
      _words=2
      ;;
  esac
  _name=${_name//-/_}
}

# Sets the variable "$1" to "$2" if that is allowed; "$3" says where it was read.
_options_set() {
  local shown=--${1//_/-}
  if ! [[ $1 =~ ^[a-z][a-zA-Z0-9_]*$ ]] || [ -z "${!1+set}" ]; then
    _options_fail "${3-}unknown option $shown; the options are$(_options_known) --config --help"
  fi
  case ${!1} in
    true | false)
      if [ "$2" != true ] && [ "$2" != false ]; then
        _options_fail "${3-}$shown is true or false, not '$2'"
      fi
      ;;
  esac
  case $1 in
    cmd | *_cmd) if [ -z "$2" ]; then _options_fail "${3-}$shown is empty; give a command, e.g. run.py"; fi ;;
  esac
  printf -v "$1" '%s' "$2"
}

# Prints the values of --config among "$@", one on each line, or --help, which wins over any error.
_options_first() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help)
        echo --help
        return
        ;;
      -- | [!-]*) return ;;
      --config=*) echo "${1#*=}" ;;
      --config) echo "${2-}" ;;
    esac
    case $1 in
      --*=*) shift ;;
      *) shift $(($# > 1 ? 2 : 1)) ;;
    esac
  done
}

_configs=$(_options_first "$@")
if [[ $_configs == *--help ]]; then
  _options_help
  exit 0
fi
# Sets the options of the file "$1", lines of name=value or --name=value; # begins a comment.
_options_read() {
  local line number=0 LC_ALL=C # bytes
  if [ ! -r "$1" ] || [ -d "$1" ]; then _options_fail "$1: cannot read this file of --config"; fi
  while read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    if [ $number = 1 ]; then
      case $line in
        $'\xFF\xFE'* | $'\xFE\xFF'*) _options_fail "$1: is UTF-16; convert it with iconv -f utf-16 -t utf-8" ;;
        $'\x1F\x8B'* | $'\x89PNG'*) _options_fail "$1: is not a text; give lines name=value" ;;
        $'\xEF\xBB\xBF'*)
          echo "WARNING ($(basename "$0")) $1: begins with a byte order mark, which was passed over" >&2
          line=${line:3}
          line=${line#"${line%%[![:space:]]*}"}
          ;;
      esac
    fi
    if [[ $line =~ ^([^#]*[[:blank:]])?# ]]; then line=${BASH_REMATCH[1]:-}; fi
    line=${line#--}
    while [[ $line == *[[:space:]] ]]; do line=${line%?}; done
    if [ -z "$line" ]; then continue; fi
    if [[ $line == *$'\r'* ]]; then
      _options_fail "$1:$number: holds a carriage return that does not end it; replace it with tr '\\r' '\\n'"
    fi
    if ! [[ $line =~ ^([a-z][a-zA-Z0-9_-]*)=(.*)$ ]]; then
      _options_fail "$1:$number: expected name=value, not '$line'"
    fi
    _name=${BASH_REMATCH[1]//-/_}
    _value=${BASH_REMATCH[2]}
    if [[ $_value =~ ^\"(.*)\"$ || $_value =~ ^\'(.*)\'$ ]]; then _value=${BASH_REMATCH[1]}; fi
    _options_set "$_name" "$_value" "$1:$number: "
  done < "$1"
}

while read -r _value; do
  if [ -n "$_value" ]; then _options_read "$_value"; fi
done <<< "$_configs"

while [ $# -gt 0 ]; do
  case $1 in
    --)
      shift
      break
      ;;
    --*) ;;
    -?*) _options_fail "unknown option $1; options begin with --" ;;
    *) break ;;
  esac
  _options_split "$1" "${2-}" $#
  shift "$_words"
  if [ "$_name" != config ]; then _options_set "$_name" "$_value"; fi
done

unset _configs _name _value _words
unset -f _options_fail _options_known _options_help _options_split _options_set _options_first \
  _options_read
true
