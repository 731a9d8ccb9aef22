// Kernels whose PTX (sample.ptx beside, by `nvcc -ptx -arch=sm_90 sample.cu`,
// CUDA 13.0) the emulator's tests run: what another compiler than ours emits.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// One block of 128 threads per row.
extern "C" __global__ void __launch_bounds__(128)
softmax(const float *__restrict__ x, float *y, int n) {
  __shared__ float part[4];
  int row = blockIdx.x;
  float m = -1e30f;
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    m = fmaxf(m, x[row * n + i]);
  for (int d = 16; d; d >>= 1)
    m = fmaxf(m, __shfl_xor_sync(~0u, m, d));
  if (threadIdx.x % 32 == 0)
    part[threadIdx.x / 32] = m;
  __syncthreads();
  m = fmaxf(fmaxf(part[0], part[1]), fmaxf(part[2], part[3]));
  __syncthreads();
  float s = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    s += expf(x[row * n + i] - m);
  for (int d = 16; d; d >>= 1)
    s += __shfl_xor_sync(~0u, s, d);
  if (threadIdx.x % 32 == 0)
    part[threadIdx.x / 32] = s;
  __syncthreads();
  s = part[0] + part[1] + part[2] + part[3];
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    y[row * n + i] = expf(x[row * n + i] - m) / s;
}

// 16x16 tiles; n is a multiple of 16.
extern "C" __global__ void matmul(const float *a, const float *b, float *c,
                                  int n) {
  __shared__ float as[16][16], bs[16][16];
  int x = threadIdx.x, y = threadIdx.y;
  int col = blockIdx.x * 16 + x, row = blockIdx.y * 16 + y;
  float acc = 0;
  for (int k = 0; k < n; k += 16) {
    as[y][x] = a[row * n + k + x];
    bs[y][x] = b[(k + y) * n + col];
    __syncthreads();
    for (int i = 0; i < 16; i++)
      acc += as[y][i] * bs[i][x];
    __syncthreads();
  }
  c[row * n + col] = acc;
}

// 8 elements per thread, 128-bit accesses.
extern "C" __global__ void gelu(const __nv_bfloat16 *x, __nv_bfloat16 *y,
                                int n) {
  int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= n)
    return;
  uint4 v = *(const uint4 *)(x + i);
  __nv_bfloat16 *p = (__nv_bfloat16 *)&v;
  for (int k = 0; k < 8; k++) {
    float f = __bfloat162float(p[k]);
    f = 0.5f * f * (1 + tanhf(0.79788456f * (f + 0.044715f * f * f * f)));
    p[k] = __float2bfloat16(f);
  }
  *(uint4 *)(y + i) = v;
}

// Dynamic shared memory and atomics.
extern "C" __global__ void histogram(const int *x, int *bins, int n) {
  extern __shared__ int s[];
  for (int i = threadIdx.x; i < 64; i += blockDim.x)
    s[i] = 0;
  __syncthreads();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n)
    atomicAdd(&s[x[i] % 64], 1);
  __syncthreads();
  for (int i = threadIdx.x; i < 64; i += blockDim.x)
    atomicAdd(bins + i, s[i]);
}

// Local memory, 64-bit division, double, half, libdevice's functions.
extern "C" __global__ void misc(const __half *h, double *d, const long long *l,
                                float *o, int n) {
  int i = threadIdx.x;
  float t[8];
  for (int k = 0; k < 8; k++)
    t[k] = __half2float(h[i * 8 + k]);
  float a = t[n & 7];
  d[i] = sqrt((double)a) + l[i] / (n + 1) + l[i] % 7;
  o[i] = sinf(a) + erff(a) + rsqrtf(a) + powf(a, 1.5f) + __fdividef(a, 3.f) +
         __expf(a) + __popc(i) + __clz(i) + (float)__ballot_sync(~0u, a > 0.f) +
         (i / n) + (unsigned)i % (unsigned)n;
}

// D = A [16, 16] B [16, 8] in bf16 by one tensor-core instruction of one warp.
extern "C" __global__ void tensor(const __nv_bfloat16 *a,
                                  const __nv_bfloat16 *b, float *d) {
  int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned fa[4], fb[2];
  const unsigned *a2 = (const unsigned *)a; // rows of 16: 8 words
  fa[0] = a2[g * 8 + t];
  fa[1] = a2[(g + 8) * 8 + t];
  fa[2] = a2[g * 8 + t + 4];
  fa[3] = a2[(g + 8) * 8 + t + 4];
  const unsigned *b2 = (const unsigned *)b; // B transposed: 8 rows of 16
  fb[0] = b2[g * 8 + t];
  fb[1] = b2[g * 8 + t + 4];
  float c[4] = {0, 0, 0, 0};
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]),
                 "r"(fb[1]));
  d[g * 8 + t * 2] = c[0];
  d[g * 8 + t * 2 + 1] = c[1];
  d[(g + 8) * 8 + t * 2] = c[2];
  d[(g + 8) * 8 + t * 2 + 1] = c[3];
}
