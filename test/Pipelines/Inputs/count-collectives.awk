# Counts the collectives of @train_step by part: "2 forward all_reduce tp".
/func.func @/ { inside = /@train_step/ }
inside && match($0, /dshard\.(all_gather|all_reduce|reduce_scatter|all_to_all) /) {
  name = substr($0, RSTART + 7, RLENGTH - 8)
  match($0, /over \[[^\]]*\]/)
  axes = substr($0, RSTART + 6, RLENGTH - 7)
  gsub(/[" ]/, "", axes)
  match($0, /part<[a-z]*>/)
  part = substr($0, RSTART + 5, RLENGTH - 6)
  count[part " " name " " axes]++
}
END { for (key in count) print count[key], key }
