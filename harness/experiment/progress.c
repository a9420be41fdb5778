#include "harness/experiment/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "harness/core/clock.h"

enum { BAR_WIDTH = 24, REDRAW_NS = 100000000 };

static void clock_text(char *text, size_t size, double seconds)
{
    long s = (long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(text, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, size, "%ld:%02ld", s / 60, s % 60);
}

static int terminal_width(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

static void draw(struct sb_progress *p, const char *note)
{
    char bar[BAR_WIDTH + 1], elapsed[32], left[32] = "?", line[512];
    double share = p->total ? (double)p->done / (double)p->total : 1;
    int full = (int)(share * BAR_WIDTH);
    memset(bar, '.', BAR_WIDTH);
    memset(bar, '#', (size_t)full);
    bar[BAR_WIDTH] = '\0';
    double seconds = (double)(sb_now_ns() - p->started_ns) * 1e-9;
    clock_text(elapsed, sizeof elapsed, seconds);
    if (p->counted > 0)
        clock_text(left, sizeof left, seconds / (double)p->counted * (double)(p->total - p->done));
    snprintf(line, sizeof line, "[%s] %lld/%lld  %s, ETA %s  %s", bar, (long long)p->done,
             (long long)p->total, elapsed, left, note);
    fprintf(stderr, "\r%.*s\033[K", terminal_width() - 1, line);
    fflush(stderr);
}

void sb_progress_start(struct sb_progress *p, bool quiet, int64_t total, int64_t already_done)
{
    const char *term = getenv("TERM");
    *p = (struct sb_progress){ .total = total, .done = already_done, .started_ns = sb_now_ns() };
    p->shown = !quiet && isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
    if (p->shown)
        draw(p, "warming up");
}

void sb_progress_advance(struct sb_progress *p, const char *note)
{
    p->done++;
    p->counted++;
    uint64_t now = sb_now_ns();
    if (!p->shown || (now - p->drawn_ns < REDRAW_NS && p->done < p->total))
        return;
    p->drawn_ns = now;
    draw(p, note);
}

void sb_progress_end(struct sb_progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}
