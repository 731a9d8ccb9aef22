//===- Link.h - An object file to an image, by lld --------------*- C++ -*-===//
#ifndef DSHARD_LIB_CODEGEN_LINK_H
#define DSHARD_LIB_CODEGEN_LINK_H

#include "dshard/Codegen/Compile.h"

namespace mlir::dshard {

/// Links `object` as a shared object and finds `names` in it. An undefined
/// symbol, a dynamic relocation or a needed library is an error.
::dshard::Result<KernelImage> linkImage(llvm::ArrayRef<char> object,
                                        llvm::ArrayRef<std::string> names);

} // namespace mlir::dshard

#endif // DSHARD_LIB_CODEGEN_LINK_H
