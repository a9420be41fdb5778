/* PyTorch checkpoints as torch.save writes them since 1.6 (.bin, .pt): tensors by name, where they lie
 * in the mapped file. Nothing from the file is run (torch_pickle.h). */
#ifndef SB_MODEL_TORCH_FILE_H
#define SB_MODEL_TORCH_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/mapping.h"
#include "harness/model/stored.h"

struct sb_torch_file {
    struct sb_mapping map;
    struct sb_stored_tensor
        *tensor; /* sorted by name, keys of nested dictionaries joined by dots; tensors
                                        may share bytes */
    size_t n;
    size_t n_other; /* values that are no tensors (numbers, texts, lists), left out */
};

/* Open and check. SB_EUNSUPPORTED for files of before 1.6, TorchScript programs, compressed entries and
 * pickles that ask for more than tensors. */
enum sb_status sb_torch_open(struct sb_torch_file *out, const char *path, struct sb_error *err);
/* The same over bytes that stay in place; sb_torch_close then unmaps nothing. */
enum sb_status sb_torch_parse(struct sb_torch_file *out, const uint8_t *bytes, size_t size,
                              const char *name, struct sb_error *err);
void sb_torch_close(struct sb_torch_file *file);
const struct sb_stored_tensor *sb_torch_find(const struct sb_torch_file *file,
                                             const char *name); /* or NULL */

/* Whether a file is to be read as torch's: it begins as an archive or a pickle, or is called .bin, .pt or
 * .pth and begins not as a GGUF. */
bool sb_torch_is_file(const char *path);

#endif
