/*===- Runtime.h - Read and run plans from C ----------------------*- C -*-===*\
|*
|* The library libdshard-runtime; it holds no LLVM and no Python.
|*
|*   dshard_session_t *session;
|*   char *error = dshard_session_create("mlp.dsplan", NULL, &session);
|*   if (!error) error = dshard_session_load(session);
|*   dshard_tensor_t x = {"x", DSHARD_F32, 2, dims, data}, y = ...;
|*   if (!error) error = dshard_session_run(session, "run", &x, 1, &y, 1);
|*   if (error) { puts(error); free(error); }
|*   dshard_session_destroy(session);
|*
|* A function that returns `char *` gives NULL when all went well, else one line
|* of text that says what is wrong, where, and a way out. Every `char *` that a
|* function gives, as its result or through a `char **`, is the caller's, who
|* calls free() on it; every `const char *` and every dims pointer belongs to
|* the handle that it was asked of. No function throws or aborts on bad input.
|*
|* Tensors are global, dense, row-major, in host memory and in natural order,
|* whatever the mesh. A handle is used by one thread at a time.
|*
\*===----------------------------------------------------------------------===*/
#ifndef DSHARD_CAPI_RUNTIME_H
#define DSHARD_CAPI_RUNTIME_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Equal to the plan's DataType (Plan/plan.fbs). */
typedef enum dshard_dtype_t {
  DSHARD_BOOL = 1,
  DSHARD_I8,
  DSHARD_U8,
  DSHARD_I16,
  DSHARD_U16,
  DSHARD_I32,
  DSHARD_U32,
  DSHARD_I64,
  DSHARD_U64,
  DSHARD_F16,
  DSHARD_BF16,
  DSHARD_F32,
  DSHARD_F64
} dshard_dtype_t;

/* What a plan says of an input, an output or a state. */
typedef struct dshard_port_t {
  const char *name;
  dshard_dtype_t dtype;
  int32_t rank; /* how many dims */
  const int64_t *dims;
  int32_t is_check; /* an output that only says whether gradients are finite */
} dshard_port_t;

/* A tensor of the caller; `data` has the bytes of all elements. */
typedef struct dshard_tensor_t {
  const char *name;
  dshard_dtype_t dtype;
  int32_t rank;
  const int64_t *dims;
  void *data;
} dshard_tensor_t;

/*===-- A plan that is only read: on any machine
 * ---------------------------===*/

typedef struct dshard_plan_t dshard_plan_t;

/* Maps the file and checks its form. */
char *dshard_plan_open(const char *path, dshard_plan_t **plan);
void dshard_plan_close(dshard_plan_t *plan); /* NULL is allowed */

/* The texts of dshard-plan print, stat, stat --json and explain. */
char *dshard_plan_print(dshard_plan_t *plan, char **text);
char *dshard_plan_stat(dshard_plan_t *plan, char **text);
char *dshard_plan_stat_json(dshard_plan_t *plan, char **text);
char *dshard_plan_explain(dshard_plan_t *plan, char **text);
/* Proves that all ranks can run it. */
char *dshard_plan_verify(dshard_plan_t *plan);

uint32_t dshard_plan_ranks(dshard_plan_t *plan);
const char *dshard_plan_target(dshard_plan_t *plan);

uint32_t dshard_plan_entries(dshard_plan_t *plan);
/* Indices below the count; else the results are empty. */
const char *dshard_plan_entry(dshard_plan_t *plan, uint32_t entry);
uint32_t dshard_plan_inputs(dshard_plan_t *plan, uint32_t entry);
uint32_t dshard_plan_outputs(dshard_plan_t *plan, uint32_t entry);
dshard_port_t dshard_plan_input(dshard_plan_t *plan, uint32_t entry,
                                uint32_t index);
dshard_port_t dshard_plan_output(dshard_plan_t *plan, uint32_t entry,
                                 uint32_t index);
uint32_t dshard_plan_scalars(dshard_plan_t *plan);
const char *dshard_plan_scalar(dshard_plan_t *plan, uint32_t index);

/*===-- A plan that runs: all its ranks, as threads of this process
 * --------===*/

typedef struct dshard_session_t dshard_session_t;

typedef struct dshard_session_options_t {
  const char *weights;    /* folder of the weight files; NULL: the model's */
  int32_t random_weights; /* not 0: draw the weights from `seed` instead */
  uint64_t seed;
  uint32_t threads; /* per rank; 0: DSHARD_THREADS, else the cores' share */
} dshard_session_options_t;

/* Verifies the plan, checks that this machine can run it, starts the ranks'
   threads. `options` may be NULL. Takes no memory for tensors yet. */
char *dshard_session_create(const char *path,
                            const dshard_session_options_t *options,
                            dshard_session_t **session);
void dshard_session_destroy(dshard_session_t *session); /* NULL is allowed */

/* Gets all memory and reads (or draws) the weights; states begin again. */
char *dshard_session_load(dshard_session_t *session);

/* Scalars keep their values from run to run. */
char *dshard_session_set_scalar(dshard_session_t *session, const char *name,
                                double value);

/* The caller's memory instead of the plan's for an input or output, before the
   first run: 64-byte aligned, of the global shape, and alive as long as the
   session. It is still named in every run, which then copies nothing. Tensors
   that are sharded over the ranks cannot be bound. */
char *dshard_session_bind(dshard_session_t *session, const char *entry,
                          const char *name, void *data);

/* Copies all inputs, runs the entry point once, copies the outputs that are
   asked for. Missing, unknown or unfit tensors are errors. */
char *dshard_session_run(dshard_session_t *session, const char *entry,
                         const dshard_tensor_t *inputs, uint32_t input_count,
                         const dshard_tensor_t *outputs, uint32_t output_count);

/* Which gradients of the last run of a training entry point were not finite;
   NULL if all were. `skipped`: the step left all states as they were and
   training goes on; else it has to stop. */
char *dshard_session_not_finite(dshard_session_t *session, const char *entry,
                                int32_t *skipped);

/* The states that can be read: parameters and optimizer states that are not
   packed. The dims are those that the user knows. */
uint32_t dshard_session_states(dshard_session_t *session);
dshard_port_t dshard_session_state(dshard_session_t *session, uint32_t index);
char *dshard_session_get_state(dshard_session_t *session, uint32_t index,
                               void *data);

#ifdef __cplusplus
}
#endif

#endif /* DSHARD_CAPI_RUNTIME_H */
