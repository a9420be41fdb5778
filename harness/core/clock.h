/* Time: 64-bit nanoseconds from CLOCK_MONOTONIC; wall-clock text for records. */
#ifndef SB_CORE_CLOCK_H
#define SB_CORE_CLOCK_H

#include <stdint.h>

uint64_t sb_now_ns(void);
/* Current time as "2026-11-21T04:05:06Z". */
void sb_utc_text(char text[21]);

#endif
