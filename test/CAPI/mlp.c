/* The whole way from C: compile for one and for two ranks, look, run, compare;
   and errors as text. The last line says how many checks failed. */
#include "dshard/CAPI/Compiler.h"
#include "dshard/CAPI/Runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void expect(int holds, const char *what) {
  if (holds)
    return;
  ++failures;
  fprintf(stderr, "failed: %s\n", what);
}

/* No error; prints and frees one. */
static int succeeded(char *error, const char *what) {
  expect(!error, what);
  if (!error)
    return 1;
  fprintf(stderr, "  %s\n", error);
  free(error);
  return 0;
}

/* An error that holds `part`. */
static void refused(char *error, const char *part) {
  expect(error && strstr(error, part), part);
  if (error && !strstr(error, part))
    fprintf(stderr, "  it says: %s\n", error);
  free(error);
}

enum { rows = 16, columns = 64 };

/* With copies, or in the caller's memory. */
static void run(const char *path, float *result, int bound) {
  dshard_session_options_t options = {NULL, 1, 5, 1};
  dshard_session_t *session = NULL;
  if (!succeeded(dshard_session_create(path, &options, &session), "create"))
    return;
  static _Alignas(64) float input[rows * columns];
  for (int i = 0; i < rows * columns; ++i)
    input[i] = (float)((i * 37) % 101) / 101.0f;
  int64_t dims[] = {rows, columns}, half[] = {rows / 2, columns};
  dshard_tensor_t x = {"x", DSHARD_F32, 2, dims, input};
  dshard_tensor_t y = {"y", DSHARD_F32, 2, dims, result};
  if (bound) {
    succeeded(dshard_session_bind(session, "run", "x", input), "bind x");
    succeeded(dshard_session_bind(session, "run", "y", result), "bind y");
    refused(dshard_session_bind(session, "run", "x", input + 1),
            "memory bound to 'x' is not aligned to 64 bytes");
    refused(dshard_session_bind(session, "run", "z", input), "'z'");
  }
  if (succeeded(dshard_session_load(session), "load"))
    succeeded(dshard_session_run(session, "run", &x, 1, &y, 1), "run");
  y.dims = half;
  refused(dshard_session_run(session, "run", &x, 1, &y, 1),
          "output 'y' is f32[16, 64], the memory given for it is f32[8, 64]");
  refused(dshard_session_run(session, "run", NULL, 0, NULL, 0),
          "no value for the input 'x'");
  refused(dshard_session_run(session, "go", &x, 1, NULL, 0), "'go'");
  refused(dshard_session_set_scalar(session, "lr", 1), "no scalar 'lr'");
  dshard_session_destroy(session);
}

static void look(const char *path, uint32_t ranks) {
  dshard_plan_t *plan = NULL;
  if (!succeeded(dshard_plan_open(path, &plan), "open"))
    return;
  expect(dshard_plan_ranks(plan) == ranks, "ranks");
  expect(dshard_plan_entries(plan) == 1, "entries");
  expect(!strcmp(dshard_plan_entry(plan, 0), "run"), "name of the entry");
  dshard_port_t x = dshard_plan_input(plan, 0, 0);
  expect(!strcmp(x.name, "x") && x.dtype == DSHARD_F32 && x.rank == 2 &&
             x.dims[0] == rows && x.dims[1] == columns,
         "the input");
  expect(dshard_plan_input(plan, 0, 1).rank == 0, "an input that is not there");
  expect(dshard_plan_outputs(plan, 7) == 0, "an entry that is not there");
  char *text = NULL;
  succeeded(dshard_plan_explain(plan, &text), "explain");
  expect(text && !!strstr(text, "all_reduce") == (ranks > 1), "collectives");
  free(text);
  succeeded(dshard_plan_verify(plan), "verify");
  dshard_plan_close(plan);
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: capi-test MODEL.onnx TP-PLAN.json OUT.dsplan\n");
    return 2;
  }
  static _Alignas(64) float results[2][rows * columns];
  for (uint32_t ranks = 1; ranks <= 2; ++ranks) {
    dshard_option_t options[] = {{"dim", "batch=16"},
                                 {"target", "cpu:native"},
                                 {"tp-plan", argv[2]},
                                 {"mesh", ranks == 1 ? "tp=1" : "tp=2"}};
    char *messages = NULL;
    if (succeeded(dshard_compile(argv[1], options, 4, argv[3], &messages),
                  "compile")) {
      look(argv[3], ranks);
      run(argv[3], results[ranks - 1], ranks == 2);
    }
    free(messages);
  }
  double largest = 0, difference = 0;
  for (int i = 0; i < rows * columns; ++i) {
    largest = fmax(largest, fabs(results[0][i]));
    difference = fmax(difference, fabs(results[0][i] - results[1][i]));
  }
  expect(largest > 0.1 && difference <= 1e-5, "one rank and two agree");

  dshard_option_t unknown = {"mush", "tp=2"};
  refused(dshard_compile(argv[1], &unknown, 1, argv[3], NULL),
          "--mush: no such option");
  refused(dshard_compile("no-such.onnx", NULL, 0, argv[3], NULL),
          "no-such.onnx: no such file");
  dshard_plan_t *plan = NULL;
  refused(dshard_plan_open("no-such.dsplan", &plan), "cannot open");
  printf("%d checks failed\n", failures);
  return failures != 0;
}
