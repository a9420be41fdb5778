/* A progress bar with the time that is left, on stderr, when that is a terminal. */
#ifndef SB_EXPERIMENT_PROGRESS_H
#define SB_EXPERIMENT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct sb_progress {
    bool shown;
    int64_t total, done, counted; /* counted: done in this run, what the speed is judged by */
    uint64_t started_ns, drawn_ns;
};
void sb_progress_start(struct sb_progress *p, bool quiet, int64_t total, int64_t already_done);
void sb_progress_advance(struct sb_progress *p, const char *note); /* one more is done */
void sb_progress_end(struct sb_progress *p);                       /* clears the line */

#endif
