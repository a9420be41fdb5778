/* Tables of a page, and what their columns mean. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/html/internal.h"

/* What people read above a column, and the definition below the table. One list for all views; columns
 * that are not here keep their name. */
static const struct {
    const char *column, *heading, *meaning;
} terms[] = {
    { "prompts", "prompts", "questions with all their turns; only those that ended well" },
    { "mat", "MAT",
      "mean accepted tokens: tokens kept \xc3\xb7 steps, pooled over all steps; a step is one forward of the"
      " target, the prefill is none" },
    { "draft_efficiency", "draft efficiency", "draft tokens accepted \xc3\xb7 drafted" },
    { "hit_rate", "hit rate", "share of the steps that had a draft" },
    { "tokens_per_s", "tokens/s",
      "new tokens \xc3\xb7 decode seconds; the prefill is left out on both sides" },
    { "speedup", "speedup",
      "decode time of the baseline \xc3\xb7 of the arm, on the same prompts" },
    { "speedup_lo", "95\xc2\xa0% from",
      "lower end of the 95 % interval of the speedup: a paired bootstrap that draws whole questions" },
    { "speedup_hi", "95\xc2\xa0% to", "its upper end" },
    { "speedup_gm", "geometric mean", "of the prompts' own speedups" },
    { "speedup_e2e", "with prefill", "the speedup when the prefill counts too" },
    { "specbench_speedup", "Spec-Bench",
      "the speedup by Spec-Bench's formula, for comparison with its tables only" },
    { "equal", "equal",
      "generations whose tokens equal the baseline's, of all compared (greedy decoding)" },
    { "guarantee", "guarantee", "what the verifier declares" },
    { "lossless", "lossless",
      "what the newest certificate in this file, of the same build, says of the verifier" },
    { "few", "few", "1: fewer than 10 prompts; mind the interval's width" },
    { "per_token", "per token", "1: token counts differ, so times are compared per token" },
    { "noise_floor", "noise floor",
      "how far from 1 the ratio of plain decoding to itself may lie; a speedup within it is no speedup" },
    { "note", "note", NULL },
    { "errors", "errors", "generations that failed; they are in no other figure" },
    { "missing", "missing", "generations that were planned and are not in this file" },
    { "exposure", "exposure",
      "steps in which this position had a draft token and all before it were accepted" },
    { "conditional", "conditional", "accepted \xc3\xb7 exposure" },
    { "survival", "survival",
      "product of the conditional rates up to here; drafts that end early are censored, not rejected" },
    { "marginal", "marginal", "accepted here \xc3\xb7 all steps" },
    { "ms_per_step", "ms per step", "decode time \xc3\xb7 steps" },
    { "prefill_s", "prefill, s", NULL },
    { "decode_s", "decode, s", NULL },
    { "draft", "draft", "share of the decode time spent on drafting" },
    { "verify", "verify", "share of the target's forward" },
    { "accept", "accept", "share of judging the draft" },
    { "commit", "commit", "share of keeping the accepted path" },
    { "observe", "observe", "share of the drafter's learning from the result" },
    { "other", "other", "share of what lies between the measured parts" },
    { "draft_overhead", "draft overhead", "drafting \xc3\xb7 all measured parts" },
    { "alpha_tv", "\xce\xb1 (TV)", "mean of 1 \xe2\x88\x92 TV(p, q): the acceptance of one draw" },
    { "ot_bound", "bound", "the best acceptance of any exact rule that judges node by node" },
    { "left_on_table", "left on the table", "bound \xe2\x88\x92 acceptance" },
    { "variation_upper", "variation, upper",
      "95 % upper bound of the first tokens' total variation" },
    { "drift_upper", "drift, upper", "95 % upper bound of the drift per token" },
    { "detectable", "detectable", "the variation that would have been found with probability .99" },
    { "p_holm", "p (Holm)", "the smallest p-value, adjusted for all tests of the certificate" },
    { "max_error", "largest error", "of any sequence's probability, by enumeration" },
};
enum { TERMS = sizeof terms / sizeof *terms };
_Static_assert(TERMS <= 64, "a bit of `said` for each term");

static int term_of(const char *column)
{
    for (int i = 0; i < TERMS; i++)
        if (strcmp(terms[i].column, column) == 0)
            return i;
    return -1;
}

void sb_html_text(FILE *out, const char *text)
{
    char *clean = sb_printable(text);
    for (const char *p = clean ? clean : ""; *p; p++)
        switch (*p) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fputc(*p, out);
        }
    sb_free(clean);
}

/* Underscores become blanks, so that long names may break. */
static void put_heading(FILE *out, const char *column)
{
    int term = term_of(column);
    char *name = sb_strdup(term >= 0 ? terms[term].heading : column);
    for (char *p = name; p && *p; p++)
        if (*p == '_')
            *p = ' ';
    sb_html_text(out, name ? name : column);
    sb_free(name);
}

/* A column that says 'all' in every row says nothing. */
static bool is_shown(const struct sb_table *t, size_t column)
{
    bool same = strcmp(sb_table_name(t, column), "task") == 0;
    for (size_t r = 0; r < sb_table_rows(t) && same; r++)
        same = strcmp(sb_table_cell(t, r, column), "all") == 0;
    return !same && sb_table_shown(t, column);
}

static bool is_number(const struct sb_table *t, size_t column)
{
    bool any = false;
    for (size_t r = 0; r < sb_table_rows(t); r++) {
        if (sb_table_type(t, r, column) == SB_CELL_TEXT)
            return false;
        any = any || sb_table_type(t, r, column) != SB_CELL_NULL;
    }
    return any;
}

static enum sb_status put_cell(FILE *out, const struct sb_table *t, size_t r, size_t c, bool number,
                               struct sb_error *err)
{
    enum { NAME = 24, SENTENCE = 48 }; /* texts as long as this may break */
    char *text = sb_table_people(t, r, c);
    double value = sb_table_value(t, r, c);
    bool none = sb_table_type(t, r, c) == SB_CELL_NULL;
    if (!text)
        return sb_fail(err, SB_ENOMEM, "out of memory for a page");
    if (c == 0)
        fputs("<th scope=\"row\"", out);
    else
        fputs("<td", out);
    if (number)
        fputs(" class=\"n\"", out);
    else if (strlen(text) > (c == 0 ? NAME : SENTENCE))
        fputs(" class=\"long\"", out);
    if (!none && isfinite(value))
        fprintf(out, " data-v=\"%.17g\"", value);
    fputc('>', out);
    const char *name = sb_table_name(t, c);
    bool word = strcmp(name, "lossless") == 0 || strcmp(name, "verdict") == 0;
    if (!none && word)
        fprintf(out, "<span class=\"word\" data-word=\"");
    if (!none && word) {
        sb_html_text(out, text);
        fputs("\">", out);
    }
    sb_html_text(out, none ? "\xe2\x80\x93" : text);
    fputs(!none && word ? "</span>" : "", out);
    fputs(c == 0 ? "</th>" : "</td>", out);
    sb_free(text);
    return SB_OK;
}

static void put_head(FILE *out, const struct sb_table *t)
{
    fputs("<thead><tr>", out);
    for (size_t c = 0; c < sb_table_columns(t); c++)
        if (is_shown(t, c)) {
            fprintf(out, "<th scope=\"col\"%s data-column=\"",
                    is_number(t, c) ? " class=\"n\"" : "");
            sb_html_text(out, sb_table_name(t, c));
            fputs("\">", out);
            put_heading(out, sb_table_name(t, c));
            fputs("</th>", out);
        }
    fputs("</tr></thead>\n<tbody>\n", out);
}

enum sb_status sb_html_table(FILE *out, const struct sb_html_table *table,
                             const struct sb_source *source, struct sb_error *err)
{
    const struct sb_table *t = table->rows;
    const struct sb_arm_name *arms;
    enum sb_status rc = SB_OK;
    int task = sb_table_find(t, "task");
    sb_source_arms(source, &arms);
    fprintf(out, "<h3 id=\"%s-name\">", table->id);
    sb_html_text(out, table->caption);
    fprintf(
        out,
        "</h3>\n<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-labelledby=\"%s-name\">\n"
        "<table id=\"%s\" class=\"sortable\" aria-labelledby=\"%s-name\">\n",
        table->id, table->id, table->id);
    put_head(out, t);
    for (size_t r = 0; r < sb_table_rows(t) && rc == SB_OK; r++) {
        int arm = strcmp(sb_table_name(t, 0), "arm") == 0
                      ? sb_source_arm(source, sb_table_cell(t, r, 0))
                      : -1;
        bool total = task >= 0 && is_shown(t, (size_t)task) &&
                     strcmp(sb_table_cell(t, r, (size_t)task), "all") == 0;
        fprintf(out, "<tr%s>",
                arm >= 0 && arms[arm].is_baseline ? " class=\"base\""
                : total                           ? " class=\"total\""
                                                  : "");
        for (size_t c = 0; c < sb_table_columns(t) && rc == SB_OK; c++)
            if (is_shown(t, c))
                rc = put_cell(out, t, r, c, is_number(t, c), err);
        fputs("</tr>\n", out);
    }
    fputs("</tbody>\n</table>\n</div>\n", out);
    return rc;
}

void sb_html_terms(FILE *out, const struct sb_table *t, unsigned long long *said)
{
    bool begun = false;
    for (size_t c = 0; c < sb_table_columns(t); c++) {
        int term = term_of(sb_table_name(t, c));
        if (term < 0 || !terms[term].meaning || !is_shown(t, c) || (*said >> term & 1))
            continue;
        if (!begun)
            fputs("<dl class=\"terms\">\n", out);
        begun = true;
        *said |= 1ull << term;
        fputs("<div><dt>", out);
        sb_html_text(out, terms[term].heading);
        fputs("</dt><dd>", out);
        sb_html_text(out, terms[term].meaning);
        fputs("</dd></div>\n", out);
    }
    if (begun)
        fputs("</dl>\n", out);
}
