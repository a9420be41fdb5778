/* gnuplot's SVG, rewritten for a page by libxml2. */
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/html/internal.h"

#define X(text) ((const xmlChar *)(text))

static bool named(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && xmlStrEqual(node->name, X(name));
}

/* The variable for one of our colours ("rgb(  0, 106, 168)", "#006aa8"), or for gnuplot's own black and
 * white. */
static const char *variable(const char *value)
{
    unsigned r, g, b;
    if (strcmp(value, "black") == 0)
        return "ink";
    if (strcmp(value, "white") == 0)
        return "paper";
    if (sscanf(value, "rgb( %u , %u , %u )", &r, &g, &b) != 3 &&
        sscanf(value, "#%2x%2x%2x", &r, &g, &b) != 3)
        return NULL;
    for (int i = 0; i < SB_COLOUR_COUNT; i++) {
        const unsigned char *c = sb_colours[i].light;
        if (c[0] == r && c[1] == g && c[2] == b)
            return sb_colours[i].name;
    }
    return NULL;
}

/* Colours move from attributes into a style, where variables are understood. */
static void restyle(xmlNode *node)
{
    static const char *const attributes[] = { "fill", "stroke", "color" };
    char style[160] = "";
    for (int i = 0; i < 3; i++) {
        xmlChar *value = xmlGetNoNsProp(node, X(attributes[i]));
        const char *name = value ? variable((const char *)value) : NULL;
        size_t n = strlen(style);
        if (name) {
            snprintf(style + n, sizeof style - n, "%s:var(--%s);", attributes[i], name);
            xmlUnsetProp(node, X(attributes[i]));
        }
        xmlFree(value);
    }
    if (style[0])
        xmlNewProp(node, X("style"), X(style));
}

/* id="gpPt6" becomes id="ID-gpPt6", and so do the references to it. */
static void rename_ids(xmlNode *node, const char *prefix)
{
    xmlChar *id = xmlGetNoNsProp(node, X("id"));
    xmlChar *link = xmlGetNsProp(node, X("href"), X("http://www.w3.org/1999/xlink"));
    char *new_id = id ? sb_strf("%s-%s", prefix, (char *)id) : NULL;
    char *new_link = link && link[0] == '#' ? sb_strf("#%s-%s", prefix, (char *)link + 1) : NULL;
    if (new_id)
        xmlSetProp(node, X("id"), X(new_id));
    if (link)
        xmlUnsetNsProp(node, xmlSearchNsByHref(node->doc, node, X("http://www.w3.org/1999/xlink")),
                       X("href"));
    if (new_link)
        xmlNewProp(node, X("href"), X(new_link));
    sb_free(new_id);
    sb_free(new_link);
    xmlFree(id);
    xmlFree(link);
}

/* Names for tools, filters that nothing uses, groups with nothing in them, blanks between. */
static bool superfluous(const xmlNode *node)
{
    if (node->type == XML_TEXT_NODE)
        return xmlIsBlankNode(node) && !named(node->parent, "text");
    return node->type == XML_COMMENT_NODE || named(node, "title") || named(node, "desc") ||
           named(node, "filter") || (named(node, "g") && !node->children);
}

static void rewrite(xmlNode *node, const char *id)
{
    for (xmlNode *child = node->children, *next; child; child = next) {
        next = child->next;
        if (child->type == XML_ELEMENT_NODE)
            rewrite(child, id);
        if (superfluous(child)) {
            xmlUnlinkNode(child);
            xmlFreeNode(child);
        }
    }
    restyle(node);
    rename_ids(node, id);
    xmlUnsetProp(node, X("font-family")); /* the page's */
}

static void add_text(xmlNode *root, xmlNode *before, const char *element, const char *id,
                     const char *text)
{
    xmlNode *node = xmlNewTextChild(root, root->ns, X(element), X(text));
    char *name = sb_strf("%s-%s", id, element);
    if (node && name)
        xmlNewProp(node, X("id"), X(name));
    if (node && before)
        xmlAddPrevSibling(before, node);
    sb_free(name);
}

static void dress(xmlNode *root, const struct sb_svg_names *names)
{
    char *label = sb_strf("%s-title %s-desc", names->id, names->id);
    xmlNode *first;
    xmlUnsetProp(root, X("width"));
    xmlUnsetProp(root, X("height"));
    xmlSetProp(root, X("id"), X(names->id));
    xmlSetProp(root, X("class"), X(names->css_class));
    xmlSetProp(root, X("role"), X("img"));
    xmlSetProp(root, X("aria-labelledby"), X(label ? label : ""));
    first = root->children;
    add_text(root, first, "title", names->id, names->title);
    add_text(root, first, "desc", names->id, names->description);
    sb_free(label);
}

enum sb_status sb_svg_inline(char **out, const char *svg, size_t n,
                             const struct sb_svg_names *names, struct sb_error *err)
{
    xmlDoc *doc = n < INT32_MAX ? xmlReadMemory(svg, (int)n, "plot.svg", NULL,
                                                XML_PARSE_NONET | XML_PARSE_NOERROR |
                                                    XML_PARSE_NOWARNING | XML_PARSE_HUGE)
                                : NULL;
    xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
    xmlBuffer *buffer = xmlBufferCreate();
    enum sb_status rc = SB_OK;
    if (!root || !named(root, "svg")) {
        rc = sb_fail(err, SB_EIO, "gnuplot's SVG of '%s' is not well-formed", names->title);
    } else {
        rewrite(root, names->id);
        dress(root, names);
        *out = buffer && xmlNodeDump(buffer, doc, root, 0, 0) > 0
                   ? sb_strdup((const char *)xmlBufferContent(buffer))
                   : NULL;
        if (!*out)
            rc = sb_fail(err, SB_ENOMEM, "out of memory for a plot");
    }
    if (buffer)
        xmlBufferFree(buffer);
    xmlFreeDoc(doc);
    return rc;
}
