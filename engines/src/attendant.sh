# Waits for the end of its owner (the end of its input), ends the servers that the owner left in the directory $1, and removes the directory.
# An owner that ends in order says "now": nobody wants what is left. Otherwise it was killed, and the kernel has told its servers so; a
# frozen one hears nothing before it is thawed.

top=$1
read -r patience

# A stale file may name a process that has nothing to do with us: ours are named after the directory or live in it.
is_ours() {
    tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF "$top/" && return
    case $(readlink "/proc/$1/cwd") in "$top"/*) ;; *) return 1 ;; esac
}

servers() {
    for file in "$top"/*/data/postmaster.pid "$top"/*/redis.pid; do
        if [ -r "$file" ] && read -r pid <"$file" && is_ours "$pid"; then
            echo "$pid"
        fi
    done 2>/dev/null
}

# The server and its children. None of Postgres's children has children that matter.
family() {
    echo "$1"
    cat "/proc/$1/task/$1/children" 2>/dev/null
}

# Postgres writes a checkpoint on INT and only tidies up its shared memory on QUIT; Redis ends on both.
case $patience in
now) signal=QUIT naps="1 2 3 4" ;;
*) signal=INT naps="1 2 3 4 5 6 7 8 9 10" ;;
esac

for pid in $(servers); do
    # shellcheck disable=SC2046 # a list of numbers
    kill -CONT $(family "$pid")
    kill "-$signal" "$pid"
done
for _ in $naps; do
    [ -z "$(servers)" ] && break
    sleep 0.5
done

for pid in $(servers); do
    kill -STOP "$pid"
    # shellcheck disable=SC2046 # a list of numbers
    kill -KILL $(family "$pid")
done

rm -rf -- "$top"
