# objects FOLDER COMMAND ...: compiles the files in the array `sources` to FOLDER/NAME.o by COMMAND ... -c FILE -o OBJECT, as
# many at a time as there are processors: each instruction set's file takes most of a minute.
objects() {
  mkdir -p "$1"
  printf '%s\0' "${sources[@]}" | xargs -0 -P "$(nproc)" -I{} \
    bash -c 'exec "${@:3}" -c "$1" -o "$2/$(basename "$1" .c).o"' _ {} "$@"
}
