/* JUnit XML of a gate: a test suite with a test case per arm, written by libxml2, so that labels may hold
 * anything. A gate that cannot tell is an error, a drop a failure. */
#include "results/gate.h"

#include <errno.h>
#include <libxml/xmlwriter.h>
#include <string.h>

#define X(text) ((const xmlChar *)(text))

static const char *const outcome_element[] = { NULL, "failure", "error" };

static size_t count(const struct sb_gate *g, enum sb_gate_outcome outcome)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_arms; i++)
        n += g->arm[i].outcome == outcome;
    return n;
}

static bool put_counts(xmlTextWriter *w, const struct sb_gate *g)
{
    return xmlTextWriterWriteAttribute(w, X("name"), X("specbench gate")) >= 0 &&
           xmlTextWriterWriteFormatAttribute(w, X("tests"), "%zu", g->n_arms) >= 0 &&
           xmlTextWriterWriteFormatAttribute(w, X("failures"), "%zu", count(g, SB_GATE_FAILS)) >=
               0 &&
           xmlTextWriterWriteFormatAttribute(w, X("errors"), "%zu", count(g, SB_GATE_BLIND)) >= 0;
}

static bool put_moves(xmlTextWriter *w, const struct sb_gate *g, const struct sb_gate_arm *a)
{
    bool good = true;
    for (size_t i = 0; i < g->n_moves && good; i++) {
        const struct sb_gate_move *m = &g->move[i];
        if (strcmp(m->arm, a->label) == 0)
            good =
                xmlTextWriterWriteFormatString(
                    w, "\n%s question %lld: %lld tokens in %lld steps, were %lld in %lld", m->task,
                    (long long)m->question_id, (long long)m->tokens[1], (long long)m->steps[1],
                    (long long)m->tokens[0], (long long)m->steps[0]) >= 0;
    }
    return good;
}

static bool put_arm(xmlTextWriter *w, const struct sb_gate *g, const struct sb_gate_arm *a)
{
    double base = a->steps[0] ? (double)a->tokens[0] / (double)a->steps[0] : 0;
    double now = a->steps[1] ? (double)a->tokens[1] / (double)a->steps[1] : 0;
    bool good = xmlTextWriterStartElement(w, X("testcase")) >= 0 &&
                xmlTextWriterWriteAttribute(w, X("classname"), X("specbench.gate")) >= 0 &&
                xmlTextWriterWriteAttribute(w, X("name"), X(a->label)) >= 0 &&
                xmlTextWriterWriteAttribute(w, X("time"), X("0")) >= 0;
    const char *element = outcome_element[a->outcome];
    if (good && element)
        good = xmlTextWriterStartElement(w, X(element)) >= 0 &&
               xmlTextWriterWriteAttribute(w, X("message"), X(a->why)) >= 0 &&
               xmlTextWriterWriteAttribute(w, X("type"), X(sb_verdict_name(a->verdict))) >= 0 &&
               xmlTextWriterWriteString(w, X(a->why)) >= 0 && put_moves(w, g, a) &&
               xmlTextWriterEndElement(w) >= 0;
    if (good && !element)
        good = xmlTextWriterWriteFormatElement(
                   w, X("system-out"), "%s: MAT %.4f, was %.4f, over %zu prompts",
                   sb_verdict_name(a->verdict), now, base, a->prompts) >= 0;
    return good && xmlTextWriterEndElement(w) >= 0;
}

static bool put_document(xmlTextWriter *w, const struct sb_gate *g)
{
    bool good = xmlTextWriterSetIndent(w, 1) >= 0 &&
                xmlTextWriterStartDocument(w, NULL, "UTF-8", NULL) >= 0 &&
                xmlTextWriterStartElement(w, X("testsuites")) >= 0 && put_counts(w, g) &&
                xmlTextWriterStartElement(w, X("testsuite")) >= 0 && put_counts(w, g);
    for (size_t i = 0; i < g->n_arms && good; i++)
        good = put_arm(w, g, &g->arm[i]);
    return good && xmlTextWriterEndDocument(w) >= 0;
}

enum sb_status sb_gate_junit(const struct sb_gate *g, const char *path, struct sb_error *err)
{
    xmlBuffer *buffer = xmlBufferCreate();
    xmlTextWriter *w = buffer ? xmlNewTextWriterMemory(buffer, 0) : NULL;
    bool good = w && put_document(w, g);
    xmlFreeTextWriter(w);
    enum sb_status rc = good ? SB_OK : sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    FILE *f = good ? fopen(path, "wb") : NULL;
    if (good && !f)
        rc = sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno));
    if (f) {
        size_t n = (size_t)xmlBufferLength(buffer);
        bool written = fwrite(xmlBufferContent(buffer), 1, n, f) == n;
        if (fclose(f) != 0 || !written)
            rc = sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno));
    }
    xmlBufferFree(buffer);
    return rc;
}
