/*===- Compiler.h - Compile models from C -------------------------*- C -*-===*\
|*
|* The library libdshard-compiler. The conventions are those of CAPI/Runtime.h:
|* a `char *` result is NULL or one line that says what is wrong; the caller
|* frees it, and what is given through a `char **`.
|*
|*   dshard_option_t options[] = {{"mesh", "tp=2"}, {"dim", "batch=16"}};
|*   char *messages, *error =
|*       dshard_compile("mlp.onnx", options, 2, "mlp.dsplan", &messages);
|*
\*===----------------------------------------------------------------------===*/
#ifndef DSHARD_CAPI_COMPILER_H
#define DSHARD_CAPI_COMPILER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A flag of dshard-opt that says what to compile, without its dashes: mesh,
   ranks, dim, dims, const, tp-plan, train, ... `dim`, `dims` and `const` may
   come several times. `sequence-parallel` has no value (NULL). */
typedef struct dshard_option_t {
  const char *name;
  const char *value;
} dshard_option_t;

/* Compiles an .onnx into a plan, which is written whole or not at all. The
   first error is the result; `messages`, which may be NULL, gets the warnings
   and remarks, one line each, and on failure also the notes of the error. May
   be called by several threads. */
char *dshard_compile(const char *model, const dshard_option_t *options,
                     uint32_t option_count, const char *output,
                     char **messages);

#ifdef __cplusplus
}
#endif

#endif /* DSHARD_CAPI_COMPILER_H */
