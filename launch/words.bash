# shellcheck shell=bash
# What the scripts beside it share; they source it.

fail() {
  echo "${0##*/}: $1" >&2
  exit 2
}

# Words as a shell reads them back.
quote() {
  local word escaped="'\\''"
  for word; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      printf ' %s' "$word"
    else
      printf " '%s'" "${word//\'/$escaped}"
    fi
  done
}
