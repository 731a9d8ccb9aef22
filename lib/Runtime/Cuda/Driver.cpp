//===- Driver.cpp - The GPU libraries, opened at run time -----------------===//

#include "Driver.h"

#include "dshard/Support/Environment.h"
#include "dshard/Support/Text.h"

#include <dlfcn.h>

using namespace dshard;
using namespace dshard::cuda;

// The oldest whose interfaces are used: PTX of sm_90, cuBLASLt's epilogues,
// NCCL's error strings.
static constexpr int oldestDriver = 12000;
static constexpr size_t oldestBlas = 120000;
static constexpr int oldestNccl = 21800;

namespace {
struct Library {
  const char *what;   // "the CUDA driver"
  Variable variable;  // its path, if set
  const char *name;   // of the variable
  const char *wayOut; // of who does not have it
  std::vector<const char *> names;
  std::string opened; // by this name
  void *handle = nullptr;

  Status open() {
    std::string chosen = environment(variable);
    std::vector<std::string> wanted(names.begin(), names.end());
    if (!chosen.empty())
      wanted = {chosen};
    std::string reason;
    for (const std::string &each : wanted) {
      handle = dlopen(each.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle) {
        opened = each;
        return Status();
      }
      const char *text = dlerror();
      if (reason.empty() && text)
        reason = text;
    }
    return Status::error(
        std::string("cannot open ") + what + ": looked for " +
        join(wanted, ", ") +
        (chosen.empty() ? " in LD_LIBRARY_PATH and the system's folders "
                        : ", which ") +
        (chosen.empty() ? std::string("(") + name + " is not set)"
                        : std::string(name) + " names") +
        ": " + reason + "; " + wayOut);
  }

  template <typename Pointer>
  Status find(Pointer &target, const char *symbol, bool optional = false) {
    target = reinterpret_cast<Pointer>(dlsym(handle, symbol));
    if (target || optional)
      return Status();
    return Status::error(std::string(what) + " in " + opened + " has no " +
                         symbol + "; it is too old");
  }

  Status tooOld(const std::string &version, const std::string &oldest) {
    return Status::error(std::string(what) + " in " + opened + " is version " +
                         version + ", at least " + oldest + " is needed");
  }
};
} // namespace

static std::string dotted(int major, int minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

Status Driver::error(int result, const char *call) const {
  const char *name = nullptr, *text = nullptr;
  (void)getErrorName(result, &name);
  (void)getErrorString(result, &text);
  return Status::error(std::string(call) + ": " +
                       (text ? text : "unknown error") + " (" +
                       (name ? name : std::to_string(result).c_str()) + ")");
}

Status BlasLibrary::check(int result, const char *call) const {
  if (result == 0)
    return Status();
  const char *text = getStatusString(result);
  return Status::error(std::string(call) + ": " +
                       (text ? text : std::to_string(result).c_str()));
}

Status NcclLibrary::check(int result, const char *call, NcclComm comm) const {
  if (result == 0)
    return Status();
  const char *text = getErrorString(result);
  std::string message =
      std::string(call) + ": " + (text ? text : std::to_string(result).c_str());
  const char *last = getLastError(comm);
  if (last && *last)
    message += " (" + split(last, '\n').front() + ")";
  return Status::error(message);
}

static Result<Driver> makeDriver() {
  Library library{"the CUDA driver",
                  Variable::CUDA_LIBRARY,
                  "DSHARD_CUDA_LIBRARY",
                  "install NVIDIA's driver, or compile for --target=cpu",
                  {"libcuda.so.1", "libcuda.so"},
                  "",
                  nullptr};
  if (Status status = library.open(); !status)
    return status;
  Driver driver;
#define DSHARD_CUDA_DRIVER(member, symbol, arguments)                          \
  if (Status status = library.find(driver.member, #symbol); !status)           \
    return status;
#define DSHARD_CUDA_DRIVER_OPTIONAL(member, symbol, arguments)                 \
  (void)library.find(driver.member, #symbol, /*optional=*/true);
#define DSHARD_CUDA_DRIVER_HOOK(member, symbol, arguments)                     \
  (void)library.find(driver.member, #symbol, /*optional=*/true);
#include "dshard/Runtime/Cuda/Functions.def"
  int version = 0;
  if (Status status =
          driver.check(driver.driverGetVersion(&version), "cuDriverGetVersion");
      !status)
    return status;
  if (version < oldestDriver)
    return library.tooOld(dotted(version / 1000, version % 1000 / 10),
                          dotted(oldestDriver / 1000, 0));
  int result = driver.init(0);
  if (result == errorNoDevice)
    return Status::error("the CUDA driver sees no GPU; look at nvidia-smi and "
                         "CUDA_VISIBLE_DEVICES, or compile for --target=cpu");
  if (Status status = driver.check(result, "cuInit"); !status)
    return status;
  return driver;
}

static Result<BlasLibrary> makeBlas() {
  Library library{"cuBLASLt",
                  Variable::CUBLASLT_LIBRARY,
                  "DSHARD_CUBLASLT_LIBRARY",
                  "install cuBLAS 12 or newer",
                  {"libcublasLt.so.13", "libcublasLt.so.12"},
                  "",
                  nullptr};
  if (Status status = library.open(); !status)
    return status;
  BlasLibrary blas;
#define DSHARD_CUDA_BLAS(member, symbol, result, arguments)                    \
  if (Status status = library.find(blas.member, #symbol); !status)             \
    return status;
#include "dshard/Runtime/Cuda/Functions.def"
  size_t version = blas.getVersion();
  if (version < oldestBlas)
    return library.tooOld(std::to_string(version), std::to_string(oldestBlas));
  return blas;
}

static Result<NcclLibrary> makeNccl() {
  Library library{"NCCL",         Variable::NCCL_LIBRARY, "DSHARD_NCCL_LIBRARY",
                  "install NCCL", {"libnccl.so.2"},       "",
                  nullptr};
  if (Status status = library.open(); !status)
    return status;
  NcclLibrary nccl;
#define DSHARD_CUDA_NCCL(member, symbol, result, arguments)                    \
  if (Status status = library.find(nccl.member, #symbol); !status)             \
    return status;
#include "dshard/Runtime/Cuda/Functions.def"
  int version = 0;
  if (Status status = nccl.check(nccl.getVersion(&version), "ncclGetVersion");
      !status)
    return status;
  if (version < oldestNccl)
    return library.tooOld(std::to_string(version), std::to_string(oldestNccl));
  return nccl;
}

template <typename Table>
static Result<const Table *> shared(const Result<Table> &made) {
  if (!made)
    return made.status();
  return &*made;
}

Result<const Driver *> cuda::openDriver() {
  static const Result<Driver> made = makeDriver();
  return shared(made);
}

Result<const BlasLibrary *> cuda::openBlas() {
  static const Result<BlasLibrary> made = makeBlas();
  return shared(made);
}

Result<const NcclLibrary *> cuda::openNccl() {
  static const Result<NcclLibrary> made = makeNccl();
  return shared(made);
}
