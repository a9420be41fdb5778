/* The progress of a training run on stderr. */
#include <stdio.h>
#include <unistd.h>

#include "harness/core/clock.h"
#include "harness/train/train.h"

enum { BAR_CELLS = 24 };

static void draw(const struct sb_train_progress *p, bool bar)
{
    double share = p->steps ? (double)p->step / (double)p->steps : 0;
    unsigned long long seconds = p->remaining_ns / 1000000000u;
    if (bar) {
        char cells[BAR_CELLS + 1];
        for (int i = 0; i < BAR_CELLS; i++)
            cells[i] = share * BAR_CELLS > i ? '#' : '.';
        cells[BAR_CELLS] = '\0';
        fprintf(stderr, "\r\033[K%s [%s] ", p->what, cells);
    } else {
        fprintf(stderr, "%s: ", p->what);
    }
    if (p->texts)
        fprintf(stderr, "text %zu/%zu  %.0f tokens/s  ", p->step, p->steps, p->tokens_per_s);
    else
        fprintf(stderr,
                "step %zu/%zu  loss %.4f (mean %.4f)  lr %.2e  %.0f tokens/s  %.0f GFLOP/s  ",
                p->step, p->steps, p->loss, p->smooth, p->rate, p->tokens_per_s, p->gflops_per_s);
    fprintf(stderr, "%llu:%02llu left%s", seconds / 60, seconds % 60, bar && !p->last ? "" : "\n");
    fflush(stderr);
}

void sb_train_report_stderr(void *user, const struct sb_train_progress *progress)
{
    struct sb_train_screen *screen = user;
    if (!screen->started) {
        screen->started = true;
        screen->is_terminal = isatty(STDERR_FILENO);
    }
    if (progress->note) {
        fprintf(stderr, "%s%s: %s\n", screen->is_terminal ? "\r\033[K" : "", progress->what,
                progress->note);
        return;
    }
    uint64_t now = sb_now_ns(), pause = screen->is_terminal ? 100000000u : 5000000000u;
    if (!progress->last && screen->drawn_ns != 0 && now - screen->drawn_ns < pause)
        return;
    screen->drawn_ns = now;
    draw(progress, screen->is_terminal);
}
