/* The multiply-add peak of one core, in GFLOP/s: the best of many short loops
   of independent fused multiply-adds that touch no memory. speed.py compiles
   it. */
#include <immintrin.h>
#include <stdio.h>
#include <time.h>

#define REPEATS 60
#define STEPS 400000

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

#define LOOP(NAME, TARGET, WIDTH, ADD)                                         \
  __attribute__((target(TARGET), noinline)) static double NAME(void) {         \
    double begin = seconds();                                                  \
    for (long i = 0; i < STEPS; ++i)                                           \
      __asm__ volatile(ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6) ADD(7) \
                           ADD(8) ADD(9) ADD(10) ADD(11)                       \
                       :                                                       \
                       :                                                       \
                       : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",       \
                         "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");    \
    return 12.0 * 2 * WIDTH * STEPS / (seconds() - begin) * 1e-9;              \
  }
#define ADD256(I) "vfmadd231ps %%ymm15, %%ymm14, %%ymm" #I "\n"
#define ADD512(I) "vfmadd231ps %%zmm15, %%zmm14, %%zmm" #I "\n"
LOOP(peak256, "avx2,fma", 8, ADD256)
LOOP(peak512, "avx512f", 16, ADD512)

int main(void) {
  double best = 0;
  for (int i = 0; i < REPEATS; ++i) {
    double now = __builtin_cpu_supports("fma") ? peak256() : 0;
    best = now > best ? now : best;
    now = __builtin_cpu_supports("avx512f") ? peak512() : 0;
    best = now > best ? now : best;
  }
  printf("%.1f\n", best);
}
