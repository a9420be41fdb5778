#!/bin/sh
# Turn the style sheet and the script into C strings: embed.sh style.css sort.js > assets.c
set -eu

# text NAME FILE
text()
{
    echo "const char $1[] ="
    sed 's/\\/\\\\/g; s/"/\\"/g; s/.*/    "&\\n"/' "$2"
    echo "    ;"
}

echo '/* Made by embed.sh. */'
echo '#include "results/html/internal.h"'
text sb_html_style "$1"
text sb_html_script "$2"
