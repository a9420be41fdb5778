#!/bin/sh
# Turn SQL files into C arrays: embed.sh FILE.sql... > sql.c
# Files under migrations/ go to sb_migrations, in the order given, files under views/ to sb_view_sql.
# A view's leading comment stays out: what is embedded is the text that sqlite_schema will hold.
set -eu

quote()
{
    awk -v view="$2" '
        view && !begun && !/^CREATE VIEW / { next }
        { begun = 1; gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); printf "      \"%s\\n\"\n", $0 }
        END { if (!begun) { print "no CREATE VIEW at a line start" > "/dev/stderr"; exit 1 } }' "$1"
}

emit()
{
    array=$1 folder=$2
    shift 2
    echo "const struct sb_sql_text ${array}[] = {"
    for file; do
        case $file in
        */"$folder"/*.sql)
            echo "    { \"$(basename "$file" .sql)\","
            if [ "$folder" = views ]; then quote "$file" 1; else quote "$file" ""; fi
            echo "    },"
            ;;
        esac
    done
    echo "    { 0 },"
    echo "};"
}

echo '/* Made from the SQL files by embed.sh. */'
echo '#include "results/internal.h"'
emit sb_migrations migrations "$@"
emit sb_view_sql views "$@"
