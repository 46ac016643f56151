# Completion of tarn(1) for bash: commands, options, settings and their values; names of mirrors and images, as the daemon that is
# asked knows them. `tarn --complete` does the work; where it has nothing to say, files are completed.
_tarn() {
  local line="${COMP_LINE:0:COMP_POINT}" words word
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  mapfile -t COMPREPLY < <("${words[0]}" --complete "${words[@]:1}" 2>/dev/null)
  word=${words[-1]}
  # Bash takes KEY=VALUE for three words: only what stands behind the `=` is replaced.
  if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}"); fi
  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
  return 0
}
complete -o default -F _tarn tarn
