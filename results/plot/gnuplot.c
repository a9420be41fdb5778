#include "results/plot/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "results/report.h"

enum sb_status sb_gnuplot_begin(FILE **script, struct sb_error *err)
{
    FILE *f = tmpfile();
    if (!f)
        return sb_fail(err, SB_EIO, "cannot make a temporary file for gnuplot: %s",
                       strerror(errno));
    *script = f;
    return SB_OK;
}

/* Every byte but letters as an octal escape (a digit would be read as part of one): then no quote, `command`, @macro or comment is there
 * to be seen by any of the passes that gnuplot makes over a line. (Between single quotes a doubled quote
 * stands for one, but not right behind the first.) */
void sb_gnuplot_text(FILE *script, const char *text)
{
    char *line = sb_printable(text);
    fputc('"', script);
    for (const unsigned char *p = (const unsigned char *)(line ? line : ""); *p; p++)
        if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z'))
            fputc(*p, script);
        else
            fprintf(script, "\\%03o", *p);
    fputc('"', script);
    sb_free(line);
}

/* All of a file, from its beginning, in new memory with a NUL behind. */
static enum sb_status slurp(char **out, size_t *n, FILE *f, struct sb_error *err)
{
    long size = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    if (size < 0)
        return sb_fail(err, SB_EIO, "cannot read what gnuplot wrote: %s", strerror(errno));
    char *text = sb_alloc((size_t)size + 1);
    if (!text)
        return sb_fail(err, SB_ENOMEM, "out of memory for a plot of %ld bytes", size);
    rewind(f);
    if (fread(text, 1, (size_t)size, f) != (size_t)size) {
        sb_free(text);
        return sb_fail(err, SB_EIO, "cannot read what gnuplot wrote");
    }
    text[size] = '\0';
    *out = text;
    *n = (size_t)size;
    return SB_OK;
}

/* posix_spawnp rather than system(): what is run is this one program, with these arguments. --default-settings
 * keeps the user's gnuplotrc out, so that the same data gives the same picture everywhere. */
static enum sb_status spawn(int *status, FILE *script, FILE *picture, FILE *messages,
                            struct sb_error *err)
{
    char *const argv[] = { (char *)"gnuplot", (char *)"--default-settings", NULL };
    char *const environment[] = { (char *)"LC_ALL=C", (char *)"HOME=/",
                                  (char *)"PATH=/usr/bin:/bin", NULL };
    posix_spawn_file_actions_t actions;
    pid_t pid;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fileno(script), 0);
    posix_spawn_file_actions_adddup2(&actions, fileno(picture), 1);
    posix_spawn_file_actions_adddup2(&actions, fileno(messages), 2);
    int failure = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environment);
    posix_spawn_file_actions_destroy(&actions);
    if (failure == ENOENT)
        return sb_fail(err, SB_EINPUT,
                       "plots need gnuplot, which is not installed: apt-get install gnuplot-nox");
    if (failure != 0)
        return sb_fail(err, SB_EIO, "cannot start gnuplot: %s", strerror(failure));
    while (waitpid(pid, status, 0) < 0)
        if (errno != EINTR)
            return sb_fail(err, SB_EIO, "cannot wait for gnuplot: %s", strerror(errno));
    return SB_OK;
}

/* Its last line, which says what; a warning alone (a font that is missing) is no failure. */
static enum sb_status complain(int status, FILE *messages, struct sb_error *err)
{
    char *text = NULL;
    size_t n;
    enum sb_status rc = slurp(&text, &n, messages, err);
    if (rc != SB_OK)
        return rc;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
        text[--n] = '\0';
    const char *last = strrchr(text, '\n');
    sb_fail(err, SB_EIO, "gnuplot failed (%s %d): %s", WIFSIGNALED(status) ? "signal" : "exit",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), last ? last + 1 : text);
    sb_free(text);
    return SB_EIO;
}

enum sb_status sb_gnuplot_run(char **out, size_t *n, FILE *script, struct sb_error *err)
{
    FILE *picture = tmpfile(), *messages = tmpfile();
    enum sb_status rc = SB_OK;
    int status = 0;
    if (!picture || !messages || fflush(script) != 0 || ferror(script) ||
        lseek(fileno(script), 0, SEEK_SET) != 0)
        rc = sb_fail(err, SB_EIO, "cannot write a script for gnuplot: %s", strerror(errno));
    if (rc == SB_OK)
        rc = spawn(&status, script, picture, messages, err);
    if (rc == SB_OK && status != 0)
        rc = complain(status, messages, err);
    if (rc == SB_OK)
        rc = slurp(out, n, picture, err);
    if (picture)
        fclose(picture);
    if (messages)
        fclose(messages);
    return rc;
}
