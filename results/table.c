/* sb_table: rows in memory and their four printed forms. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/report.h"

struct column {
    char *name;
    int decimals;
    bool optional;
};

struct cell {
    enum sb_cell_type type;
    union {
        char *text;
        int64_t integer;
        double real;
    };
};

struct sb_table {
    struct column *column;
    struct cell *cell; /* row-major, filled from left to right */
    size_t n_columns, column_cap, n_cells, cell_cap;
    bool failed; /* memory ran out; said by sb_table_print */
};

enum sb_status sb_format_parse(enum sb_format *out, const char *name, struct sb_error *err)
{
    static const char *const names[] = { "table", "md", "csv", "json" };
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum sb_format)i;
            return SB_OK;
        }
    return sb_fail(err, SB_EUSAGE, "format '%s': expected table, md, csv or json", name);
}

struct sb_table *sb_table_create(void)
{
    return sb_alloc_zero(1, sizeof(struct sb_table));
}

void sb_table_destroy(struct sb_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_columns; i++)
        sb_free(t->column[i].name);
    for (size_t i = 0; i < t->n_cells; i++)
        if (t->cell[i].type == SB_CELL_TEXT)
            sb_free(t->cell[i].text);
    sb_free(t->column);
    sb_free(t->cell);
    sb_free(t);
}

void sb_table_column(struct sb_table *t, const char *name, int decimals)
{
    char *copy = sb_strdup(name);
    if (!copy ||
        sb_grow((void **)&t->column, &t->column_cap, t->n_columns + 1, sizeof *t->column) != 0) {
        sb_free(copy);
        t->failed = true;
        return;
    }
    t->column[t->n_columns++] = (struct column){ .name = copy, .decimals = decimals };
}

void sb_table_optional(struct sb_table *t)
{
    if (t->n_columns > 0)
        t->column[t->n_columns - 1].optional = true;
}

static void add(struct sb_table *t, struct cell cell)
{
    if (sb_grow((void **)&t->cell, &t->cell_cap, t->n_cells + 1, sizeof *t->cell) != 0) {
        if (cell.type == SB_CELL_TEXT)
            sb_free(cell.text);
        t->failed = true;
        return;
    }
    t->cell[t->n_cells++] = cell;
}

void sb_table_text(struct sb_table *t, const char *text)
{
    struct cell cell = { .type = SB_CELL_NULL };
    if (text) {
        cell.type = SB_CELL_TEXT;
        cell.text = sb_strdup(text);
        if (!cell.text) {
            t->failed = true;
            return;
        }
    }
    add(t, cell);
}

void sb_table_int(struct sb_table *t, int64_t value)
{
    add(t, (struct cell){ .type = SB_CELL_INT, .integer = value });
}

void sb_table_real(struct sb_table *t, double value)
{
    if (isnan(value))
        add(t, (struct cell){ .type = SB_CELL_NULL });
    else
        add(t, (struct cell){ .type = SB_CELL_REAL, .real = value });
}

size_t sb_table_rows(const struct sb_table *t)
{
    return t->n_columns ? t->n_cells / t->n_columns : 0;
}

/* ---- reading it again ---- */

size_t sb_table_columns(const struct sb_table *t)
{
    return t->n_columns;
}

const char *sb_table_name(const struct sb_table *t, size_t c)
{
    return t->column[c].name;
}

int sb_table_find(const struct sb_table *t, const char *name)
{
    for (size_t c = 0; c < t->n_columns; c++)
        if (strcmp(t->column[c].name, name) == 0)
            return (int)c;
    return -1;
}

enum sb_cell_type sb_table_type(const struct sb_table *t, size_t r, size_t c)
{
    return t->cell[r * t->n_columns + c].type;
}

const char *sb_table_cell(const struct sb_table *t, size_t r, size_t c)
{
    const struct cell *cell = &t->cell[r * t->n_columns + c];
    return cell->type == SB_CELL_TEXT ? cell->text : "";
}

double sb_table_value(const struct sb_table *t, size_t r, size_t c)
{
    const struct cell *cell = &t->cell[r * t->n_columns + c];
    return cell->type == SB_CELL_REAL  ? cell->real
           : cell->type == SB_CELL_INT ? (double)cell->integer
                                       : NAN;
}

/* ---- text, made safe ---- */

/* Length in bytes of the UTF-8 sequence at p, 0 when it is none (overlong and surrogates included). */
static int sequence(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    int n = p[0] >= 0xc2 && p[0] < 0xe0   ? 2
            : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
            : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                          : 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
               (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : n;
}

static void put_json_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int n = sequence(p);
        if (n == 0) {
            fputs("\xef\xbf\xbd", out); /* U+FFFD for a byte that is no UTF-8 */
            p++;
            continue;
        }
        if (*p == '"' || *p == '\\')
            fprintf(out, "\\%c", *p);
        else if (*p < 0x20 || *p == 0x7f)
            fprintf(out, *p == '\n' ? "\\n" : *p == '\t' ? "\\t" : "\\u%04x", *p);
        else
            fwrite(p, 1, (size_t)n, out);
        p += n;
    }
    fputc('"', out);
}

static void put_csv_text(FILE *out, const char *text)
{
    size_t n = strlen(text);
    if (n > 0 && !strpbrk(text, ",\"\r\n") && text[0] != ' ' && text[n - 1] != ' ') {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

/* For people: what could move the cursor or break the line becomes a blank, bad bytes and what no XML may
 * hold (U+FFFE, U+FFFF) '?'. */
static char *people_text(const char *text, bool markdown)
{
    char *copy = sb_alloc(strlen(text) * 2 + 1), *q = copy;
    if (!copy)
        return NULL;
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int n = sequence(p);
        bool c1 = n == 2 && p[0] == 0xc2 && p[1] < 0xa0;
        bool bad = n == 0 || (n == 3 && p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe);
        if (n == 1 && markdown && (*p == '|' || *p == '\\'))
            *q++ = '\\';
        if (bad || *p < 0x20 || *p == 0x7f || c1) {
            *q++ = bad ? '?' : ' ';
            p += n ? n : 1;
            continue;
        }
        memcpy(q, p, (size_t)n);
        q += n;
        p += n;
    }
    *q = '\0';
    return copy;
}

char *sb_printable(const char *text)
{
    return people_text(text, false);
}

/* The shortest decimal that reads back as the same double; always with a point or an exponent. */
static void exact_text(char text[40], double value)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, 36, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    if (!strpbrk(text, ".e"))
        strcat(text, ".0");
}

/* ---- csv, json ---- */

static void put_exact(FILE *out, const struct cell *cell, enum sb_format format)
{
    char text[40];
    bool json = format == SB_FORMAT_JSON;
    if (cell->type == SB_CELL_INT) {
        fprintf(out, "%lld", (long long)cell->integer);
    } else if (cell->type == SB_CELL_REAL && isfinite(cell->real)) {
        exact_text(text, cell->real);
        fputs(text, out);
    } else if (cell->type == SB_CELL_TEXT) {
        (json ? put_json_text : put_csv_text)(out, cell->text);
    } else if (json) { /* JSON has no infinity */
        fputs("null", out);
    } else if (cell->type == SB_CELL_REAL) {
        fputs(cell->real > 0 ? "inf" : "-inf", out);
    }
}

static void print_json(const struct sb_table *t, FILE *out)
{
    size_t rows = sb_table_rows(t);
    fputs("[", out);
    for (size_t r = 0; r < rows; r++) {
        fputs(r ? ",\n  {" : "\n  {", out);
        for (size_t c = 0; c < t->n_columns; c++) {
            fputs(c ? ", " : "", out);
            put_json_text(out, t->column[c].name);
            fputs(": ", out);
            put_exact(out, &t->cell[r * t->n_columns + c], SB_FORMAT_JSON);
        }
        fputs("}", out);
    }
    fputs(rows ? "\n]\n" : "]\n", out);
}

/* Quoted as RFC 4180 says; lines end in a bare newline, which every reader takes and shell tools need. */
static void print_csv(const struct sb_table *t, FILE *out)
{
    for (size_t c = 0; c < t->n_columns; c++) {
        fputs(c ? "," : "", out);
        put_csv_text(out, t->column[c].name);
    }
    fputc('\n', out);
    for (size_t i = 0; i < t->n_cells; i++) {
        put_exact(out, &t->cell[i], SB_FORMAT_CSV);
        fputc((i + 1) % t->n_columns ? ',' : '\n', out);
    }
}

/* ---- table, md ---- */

/* What a cell looks like to people, in new memory; NULL out of memory. */
static char *people_cell(const struct sb_table *t, size_t i, bool markdown)
{
    const struct cell *cell = &t->cell[i];
    int decimals = t->column[i % t->n_columns].decimals;
    switch (cell->type) {
    case SB_CELL_TEXT:
        return people_text(cell->text, markdown);
    case SB_CELL_INT:
        return sb_strf("%lld", (long long)cell->integer);
    case SB_CELL_REAL:
        return decimals == -1  ? sb_strf("%g", cell->real)
               : decimals < -1 ? sb_strf("%.*g", -decimals, cell->real)
                               : sb_strf("%.*f", decimals, cell->real);
    default:
        return sb_strdup("-");
    }
}

char *sb_table_people(const struct sb_table *t, size_t r, size_t c)
{
    return people_cell(t, r * t->n_columns + c, false);
}

static int width_of(const char *text) /* characters; wide ones count one */
{
    int n = 0;
    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

static void pad(FILE *out, const char *text, int bytes, int blanks, bool right)
{
    if (right)
        fprintf(out, "%*s%.*s", blanks, "", bytes, text);
    else
        fprintf(out, "%.*s%*s", bytes, text, blanks, "");
}

/* How one column is laid out. A long name takes two lines, broken after an underscore, so that narrow
 * figures stay narrow; `split` is the length of its first line. */
struct layout {
    int width, split;
    bool right, shown;
};

static int best_split(const char *name, int data_width)
{
    int length = (int)strlen(name), best = length;
    if (length <= data_width)
        return length;
    for (int i = 1; i < length; i++) {
        int longer = i > length - i ? i : length - i;
        int so_far = best > length - best ? best : length - best;
        if (name[i - 1] == '_' && longer < so_far)
            best = i;
    }
    return best;
}

bool sb_table_shown(const struct sb_table *t, size_t c)
{
    bool shown = !t->column[c].optional;
    for (size_t i = c; i < t->n_cells && !shown; i += t->n_columns) {
        const struct cell *cell = &t->cell[i];
        shown = (cell->type == SB_CELL_INT && cell->integer != 0) ||
                (cell->type == SB_CELL_REAL && cell->real != 0) ||
                (cell->type == SB_CELL_TEXT && cell->text[0]);
    }
    return shown;
}

static struct layout lay_out(const struct sb_table *t, size_t c, char *const *text, bool markdown)
{
    struct layout l = { .right = true, .shown = sb_table_shown(t, c) };
    for (size_t i = c; i < t->n_cells; i += t->n_columns) {
        const struct cell *cell = &t->cell[i];
        int width = width_of(text[i]);
        l.width = width > l.width ? width : l.width;
        l.right = l.right && cell->type != SB_CELL_TEXT;
    }
    int length = (int)strlen(t->column[c].name);
    l.split = markdown ? length : best_split(t->column[c].name, l.width);
    int name_width = l.split > length - l.split ? l.split : length - l.split;
    l.width = name_width > l.width ? name_width : l.width;
    return l;
}

/* A line under construction: blanks are held back, so that none end it. */
struct line {
    FILE *out;
    int blanks;
    bool begun;
};

static void line_cell(struct line *line, const char *text, int bytes, int blanks, bool right)
{
    line->blanks += line->begun ? 2 : 0;
    line->begun = true;
    line->blanks += right ? blanks : 0;
    if (bytes > 0) {
        fprintf(line->out, "%*s%.*s", line->blanks, "", bytes, text);
        line->blanks = 0;
    }
    line->blanks += right ? 0 : blanks;
}

static void print_names(const struct sb_table *t, FILE *out, const struct layout *l, bool upper)
{
    struct line line = { .out = out };
    for (size_t c = 0; c < t->n_columns; c++) {
        if (!l[c].shown)
            continue;
        const char *name = t->column[c].name;
        int length = (int)strlen(name), split = l[c].split < length ? l[c].split : 0;
        int from = upper ? 0 : split,
            n = upper ? split : length - split; /* short names stand below */
        line_cell(&line, name + from, n, l[c].width - n, l[c].right);
    }
    fputc('\n', out);
}

static void print_plain(const struct sb_table *t, FILE *out, const struct layout *l,
                        char *const *text)
{
    bool two_lines = false;
    for (size_t c = 0; c < t->n_columns; c++)
        two_lines = two_lines || (l[c].shown && l[c].split < (int)strlen(t->column[c].name));
    if (two_lines)
        print_names(t, out, l, true);
    print_names(t, out, l, false);
    for (size_t r = 0; r < sb_table_rows(t); r++) {
        struct line line = { .out = out };
        for (size_t c = 0; c < t->n_columns; c++) {
            const char *cell = text[r * t->n_columns + c];
            if (l[c].shown)
                line_cell(&line, cell, (int)strlen(cell), l[c].width - width_of(cell), l[c].right);
        }
        fputc('\n', out);
    }
}

static void print_markdown(const struct sb_table *t, FILE *out, const struct layout *l,
                           char *const *text)
{
    fputc('|', out);
    for (size_t c = 0; c < t->n_columns; c++)
        if (l[c].shown) {
            const char *name = t->column[c].name;
            fputc(' ', out);
            pad(out, name, (int)strlen(name), l[c].width - (int)strlen(name), l[c].right);
            fputs(" |", out);
        }
    fputs("\n|", out);
    for (size_t c = 0; c < t->n_columns; c++)
        if (l[c].shown) {
            fputs(l[c].right ? " " : " :", out);
            for (int i = 1; i < l[c].width; i++)
                fputc('-', out);
            fputs(l[c].right ? ": |" : " |", out);
        }
    fputc('\n', out);
    for (size_t r = 0; r < sb_table_rows(t); r++) {
        fputc('|', out);
        for (size_t c = 0; c < t->n_columns; c++) {
            const char *cell = text[r * t->n_columns + c];
            if (!l[c].shown)
                continue;
            fputc(' ', out);
            pad(out, cell, (int)strlen(cell), l[c].width - width_of(cell), l[c].right);
            fputs(" |", out);
        }
        fputc('\n', out);
    }
}

static bool print_for_people(const struct sb_table *t, FILE *out, bool markdown)
{
    char **text = sb_alloc_zero(t->n_cells, sizeof *text);
    struct layout *l = sb_alloc_zero(t->n_columns, sizeof *l);
    bool good = text && l;
    for (size_t i = 0; i < t->n_cells && good; i++)
        good = (text[i] = people_cell(t, i, markdown)) != NULL;
    for (size_t c = 0; c < t->n_columns && good; c++)
        l[c] = lay_out(t, c, text, markdown);
    if (good)
        (markdown ? print_markdown : print_plain)(t, out, l, text);
    for (size_t i = 0; text && i < t->n_cells; i++)
        sb_free(text[i]);
    sb_free(text);
    sb_free(l);
    return good;
}

enum sb_status sb_table_check(const struct sb_table *t, struct sb_error *err)
{
    if (t->failed)
        return sb_fail(err, SB_ENOMEM, "out of memory for a table");
    if (t->n_columns == 0 || t->n_cells % t->n_columns != 0)
        return sb_fail(err, SB_EINTERNAL, "a table of %zu columns holds %zu cells", t->n_columns,
                       t->n_cells);
    return SB_OK;
}

enum sb_status sb_table_print(const struct sb_table *t, FILE *out, enum sb_format format,
                              struct sb_error *err)
{
    enum sb_status rc = sb_table_check(t, err);
    if (rc != SB_OK)
        return rc;
    if (format == SB_FORMAT_JSON)
        print_json(t, out);
    else if (format == SB_FORMAT_CSV)
        print_csv(t, out);
    else if (!print_for_people(t, out, format == SB_FORMAT_MD))
        return sb_fail(err, SB_ENOMEM, "out of memory for a table");
    if (fflush(out) != 0 || ferror(out))
        return sb_fail(err, SB_EIO, "cannot write the table: %s", strerror(errno));
    return SB_OK;
}
