# Completion of tarnd(8) for bash.
_tarnd() {
  case "${COMP_WORDS[COMP_CWORD-1]}" in --state|--name|--nbd|--memory) return ;; esac
  mapfile -t COMPREPLY < <(compgen -W "$("$1" --help | grep -o -- '^  --[a-z-]*\|, --version')" -- "${COMP_WORDS[COMP_CWORD]}")
}
complete -o default -F _tarnd tarnd
