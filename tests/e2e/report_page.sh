#!/bin/sh
# Plots and the page, from a real database whose labels are as hostile as labels can be; the page is opened
# in headless Chromium, which must find nothing to complain of and nothing to load.
# shellcheck source=tests/e2e/lib.sh
. "$ROOT/tests/e2e/lib.sh"

for tool in gnuplot:gnuplot-nox xmllint:libxml2-utils chromium:chromium sqlite3:sqlite3; do
    if ! command -v "${tool%%:*}" >/dev/null; then
        echo "FAIL: this test needs ${tool%%:*}; ./dev deps installs it (package ${tool##*:})"
        exit 1
    fi
done

db=$work/x.db
check_code 0 "$SPECBENCH" run --target tiny --dataset mini --drafter pld \
    --drafter "small-lm:model=tiny-draft,tree='2x2x1'" --drafter token-recycling --drafter sam --take 1 \
    --max-new-tokens 24 --db "$db" --threads 1
sqlite3 "$db" "UPDATE arm SET label = '<script>alert(1)</script>' WHERE drafter = 'pld';
    UPDATE arm SET label = 'it''s \"q\\\\uoted\" \`touch $work/bad\` \$HOME @x _s_ ^p {b} 100%d' WHERE drafter = 'small-lm';
    UPDATE arm SET label = 'größe π → 日本 &amp; ]]>' || char(10) || '| touch $work/bad' WHERE drafter = 'sam';
    UPDATE experiment SET name = 'a <b>page</b> & more';"

# ---- plots ----

for view in leaderboard tasks cost positions breakdown; do
    check_code 0 "$SPECBENCH" plot "$db" --view "$view" -o "$work/$view.svg"
    [ ! -s "$work/out" ] || fail "plot writes to stdout"
    xmllint --noout "$work/$view.svg" || fail "$view.svg is not well-formed"
    grep -q 'gnuplot_canvas' "$work/$view.svg" || fail "$view.svg holds no plot"
done
if "$SPECBENCH" report "$db" --view ranks >/dev/null 2>&1; then
    for view in histogram ranks; do
        check_code 0 "$SPECBENCH" plot "$db" --view "$view" -o "$work/$view.svg"
    done
fi
check_code 0 "$SPECBENCH" plot "$db" --view breakdown --size 6000x400 -o "$work/large.svg"
grep -qF '&lt;script&gt;alert(1)' "$work/large.svg" || fail "a label is not in its plot as it is"
grep -qF "it's \"q\\\\uoted\" \`touch" "$work/large.svg" || fail "quotes in a label: $(grep -F uoted "$work/large.svg")"
[ ! -e "$work/bad" ] || fail "a label was run as a command"
for format in svg png pdf; do
    check_code 0 "$SPECBENCH" plot "$db" -o "$work/a.$format"
    sleep 1.1 # a time that a format keeps would differ
    check_code 0 "$SPECBENCH" plot "$db" --output "$work/b.$format"
    cmp "$work/a.$format" "$work/b.$format" || fail "the same database, another $format"
done
check_same "$(head -c 4 "$work/a.png" | tail -c 3)$(head -c 4 "$work/a.pdf")" "PNG%PDF" "formats"
check_code 0 "$SPECBENCH" plot "$db" --size 600x400 -o "$work/small.png"
check_same "$(od -An -tu1 -j18 -N6 "$work/small.png" | tr -s ' ')" " 2 88 0 0 1 144" "--size 600x400"

check_refused "expected a name that ends in .svg, .png or .pdf" "$SPECBENCH" plot "$db" -o "$work/x.gif"
check_refused "expected WIDTHxHEIGHT in pixels" "$SPECBENCH" plot "$db" --size 9x9 -o "$work/x.svg"
check_refused "no plot of 'runs'; there are: leaderboard" "$SPECBENCH" plot "$db" --view runs -o "$work/x.svg"
check_refused "expected -o FILE" "$SPECBENCH" plot "$db"
check_refused "has no experiment 99" "$SPECBENCH" plot "$db" --experiment 99 -o "$work/x.svg"
[ ! -e "$work/x.svg" ] || fail "a refused plot left a file"
mkdir "$work/empty"
check_refused "apt-get install gnuplot-nox" env PATH="$work/empty" "$SPECBENCH" plot "$db" -o "$work/x.svg"
check_refused "apt-get install gnuplot-nox" env PATH="$work/empty" "$SPECBENCH" report "$db" --html "$work/x.html"
[ -z "$(ls "$work"/x.html* 2>/dev/null)" ] || fail "a page that failed left a file"

# ---- the page, as a text ----

page=$work/page.html
check_code 0 "$SPECBENCH" report "$db" --html "$page"
[ ! -s "$work/out" ] || fail "report --html writes to stdout"
check_refused "leave out --view and --format" "$SPECBENCH" report "$db" --html "$page" --view tasks
xmllint --noout "$page" || fail "the page is not well-formed"
grep -q '<script>alert' "$page" && fail "a label became a script"
grep -qF '<h1>a &lt;b&gt;page&lt;/b&gt; &amp; more</h1>' "$page" || fail "the name is not escaped"
grep -Eq '(src|href|url\()="?(https?:)?//' "$page" && fail "the page refers to something outside"
for id in table-leaderboard table-tasks wide-leaderboard narrow-tasks wide-positions wide-breakdown; do
    grep -q "id=\"$id\"" "$page" || fail "the page has no $id"
done
check_same "$(grep -o ' id="[^"]*"' "$page" | sort | uniq -d | head -n 3)" "" "ids that stand twice"
grep -q 'class="whole"' "$page" || fail "a complete run is not said to be complete"
sqlite3 "$db" "DELETE FROM generation WHERE id = (SELECT max(id) FROM generation)"
check_code 0 "$SPECBENCH" report "$db" --html "$page"
grep -q 'Partial data' "$page" || fail "a partial run is not said to be partial"

# ---- the page, in a browser ----

# A driver at the end of a copy: it sorts, measures, and leaves what it found in attributes of <body>.
awk -v driver="$ROOT/tests/e2e/report_page.js" '
    /^<\/body>/ { print "<script>"; while ((getline line < driver) > 0) print line; print "</script>" }
    { print }' "$page" >"$work/driven.html"
no_sandbox=""
[ "$(id -u)" != 0 ] || no_sandbox=--no-sandbox # Chromium refuses to run as root with it
# browse WIDTH ARGUMENT...: complaints of the page to $work/console
browse() {
    width=$1
    shift
    # shellcheck disable=SC2086
    timeout 120 chromium --headless=new $no_sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
        --disable-background-networking --user-data-dir="$work/profile" --enable-logging=stderr \
        --hide-scrollbars --window-size="$width,1600" "$@" >"$work/out" 2>"$work/err" ||
        fail "chromium $*: $(tail -n 3 "$work/err")"
    grep 'CONSOLE' "$work/err" >"$work/console"
    [ ! -s "$work/console" ] || fail "on the console: $(head -n 3 "$work/console")"
    checks=$((checks + 1))
}
# found NAME: what the driver left
found() { sed -n "s/.*<body[^>]* data-$1=\"\([^\"]*\)\".*/\1/p" "$work/out"; }

for width in 1280 375; do
    browse "$width" --dump-dom "file://$work/driven.html"
    check_same "$(found requests)" 0 "requests at $width"
    check_same "$(found overflow)" 0 "pixels beyond the right edge at $width (by $(found beyond))"
    check_same "$(found sorted)" "descending ascending" "a table sorted by a click, twice"
    check_same "$(found names)" 0 "plots without a name"
    check_same "$(found layout)" "$([ "$width" = 375 ] && echo narrow || echo wide)" "layout at $width"
    browse "$width" --screenshot="$work/$width.png" "file://$page"
    [ "$(wc -c <"$work/$width.png")" -gt 20000 ] || fail "the screenshot at $width is blank"
done
browse 1280 --blink-settings=preferredColorScheme=0 --dump-dom "file://$work/driven.html"
check_same "$(found contrast)" "" "texts too faint in the dark"
check_same "$(found paper)" 0 "plots on a ground of their own in the dark"
browse 1280 --dump-dom "file://$work/driven.html"
check_same "$(found contrast)" "" "texts too faint in the light"
check_same "$(found paper)" 0 "plots on a ground of their own"
# Screenshots for people to look at, where somebody asks for them.
[ -z "${SB_KEEP_SCREENSHOTS:-}" ] || cp "$work/1280.png" "$work/375.png" "$page" "$SB_KEEP_SCREENSHOTS"

finish
