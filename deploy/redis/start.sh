#!/bin/sh
# Checks the append-only file, cuts off what a crash has torn, and starts Redis.
#
# A crash in the middle of a write leaves the beginning of a transaction at the end of the file. It was never confirmed,
# so it is cut off, and the number of bytes is printed. Anything else that is damaged was confirmed once: then nothing
# is touched and Redis is not started, because what it would come up with is not what it has promised.
#
# REDIS_DATA: the folder of the data (/data); REDIS_CONF: the settings (redis.conf beside this script).
# All arguments go to redis-server. Needs redis-check-aof, od and awk.
set -eu

data=${REDIS_DATA:-/data}
conf=${REDIS_CONF:-$(dirname "$0")/redis.conf}
files=$data/appendonlydir
manifest=$files/appendonly.aof.manifest

say() { echo "redis start: $*"; }
stop() {
  say "$*" >&2
  say "Redis is not started, and nothing was changed. Restore $files from a backup, or repair a copy of it by hand." >&2
  exit 1
}

# Reads the bytes after the last whole transaction. Says "torn" where they are the beginning of one, which may go over
# into zeros where the file had grown before the disk had the rest; else the place where they make no sense. The end of
# a transaction in there, or an argument of more than a mebibyte, says that a length before it was damaged.
judge_tail() {
  tail -c "+$(($2 + 1))" "$1" | od -An -v -tu1 | LC_ALL=C awk '
    function bad() { if (error == "") error = place }
    BEGIN { split("10 69 88 69 67 13 10", exec); met = 1 }
    {
      for (i = 1; i <= NF; i++) {
        byte = $i + 0
        if (byte != 0) zeros_from = place + 1
        met = byte == exec[met] ? met + 1 : byte == 10 ? 2 : 1
        if (met == 8) { ends = 1; met = 1 }
        if (error == "") {
          if (state == "" && byte == 42) { state = "count"; number = ""; }
          else if (state == "argument" && byte == 36) { state = "length"; number = "" }
          else if ((state == "count" || state == "length") && byte >= 48 && byte <= 57) number = number (byte - 48)
          else if ((state == "count" || state == "length") && byte == 13 && number != "") state = state "-end"
          else if (state == "count-end" && byte == 10 && number > 0) { arguments = number; state = "argument" }
          else if (state == "length-end" && byte == 10) { left = number + 0; if (left > 1048576) bad(); state = left ? "bytes" : "return" }
          else if (state == "bytes") { if (--left == 0) state = "return" }
          else if (state == "return" && byte == 13) state = "feed"
          else if (state == "feed" && byte == 10) state = --arguments ? "argument" : ""
          else bad()
        }
        place++
      }
    }
    END { print ends ? error + 0 : (error == "" || error >= zeros_from + 0) ? "torn" : error }'
}

check_and_cut() {
  report=$(mktemp)
  trap 'rm -f "$report"' EXIT
  if redis-check-aof "$manifest" >"$report" 2>&1; then
    say "the append-only file is whole"
    return
  fi
  # The line of the file that is not valid: filename=…, size=…, ok_up_to=…, ok_up_to_line=…, diff=…
  line=$(grep '^AOF analyzed: ' "$report" | grep -v 'diff=0$' | tail -n 1) || line=
  if [ -z "$line" ]; then
    cat "$report" >&2
    stop "the append-only file is damaged, and not only at its end"
  fi
  name=$(echo "$line" | sed 's/.*filename=\([^,]*\),.*/\1/')
  whole=$(echo "$line" | sed 's/.*ok_up_to=\([0-9]*\),.*/\1/')
  torn=$(echo "$line" | sed 's/.*diff=\([0-9]*\)$/\1/')
  last=$(sed -n 's/^file \([^ ]*\) seq .* type i.*/\1/p' "$manifest" | tail -n 1)
  if [ "$name" != "$last" ]; then
    stop "$name is damaged, and it is not the last part of the append-only file"
  fi
  verdict=$(judge_tail "$files/$name" "$whole")
  if [ "$verdict" != torn ]; then
    stop "$name is damaged at byte $((whole + verdict)), $((torn - verdict)) bytes before its end: that is no torn write"
  fi
  if ! echo y | redis-check-aof --fix "$manifest" >"$report" 2>&1 || ! redis-check-aof "$manifest" >"$report" 2>&1; then
    cat "$report" >&2
    stop "the torn end of $name could not be cut off"
  fi
  say "cut $torn bytes of a torn write off $name, $whole bytes are left"
}

if [ -f "$manifest" ]; then
  check_and_cut
elif [ -d "$files" ] && [ -n "$(find "$files" -name '*.aof' -o -name '*.rdb' | head -n 1)" ]; then
  stop "$files holds data and no manifest"
else
  say "no append-only file yet"
fi

# The official image's own entry point gives up root first.
if command -v docker-entrypoint.sh >/dev/null 2>&1; then
  exec docker-entrypoint.sh redis-server "$conf" --dir "$data" "$@"
fi
exec redis-server "$conf" --dir "$data" "$@"
