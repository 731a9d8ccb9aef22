//===- GraphImporter.h - One graph becomes one function ---------*- C++ -*-===//
#ifndef DSHARD_LIB_IMPORT_GRAPHIMPORTER_H
#define DSHARD_LIB_IMPORT_GRAPHIMPORTER_H

#include "DimExpression.h"
#include "ModelFile.h"
#include "Names.h"
#include "Weights.h"
#include "dshard/Import/Import.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "llvm/ADT/DenseMap.h"
#include <optional>
#include <vector>

namespace mlir::dshard::onnx {

/// Elements of a value that follow from constants and shapes. Integers and
/// booleans are in `ints`, exactly; floating-point numbers in `floats`.
/// `counted`: made by a Range, so the value stays an op (a long constant would
/// hide the pattern), and only its elements are known.
struct Known {
  std::vector<int64_t> ints;
  std::vector<double> floats;
  bool counted = false;
};
/// Rows [start, limit) of `rows`, of which only run time knows how many; null
/// rows for the numbers of the rows themselves. With `matrix`: times that
/// (Segments.cpp).
struct Segment {
  Value rows, start, limit, matrix;
};
/// A sort of all elements of one dim, ascending: sorted = x[permutation],
/// x = sorted[places] (RowOrder.cpp).
struct RowOrder {
  Value sorted, permutation, places;
};

/// A value with more elements is not tracked.
constexpr int64_t maxKnownElements = 4096;

class GraphImporter {
public:
  GraphImporter(MLIRContext *context, const ModelFile &file,
                const ImportOptions &options);

  /// Null after an error (reported).
  OwningOpRef<ModuleOp> run();

  void fail(const llvm::Twine &text);
  bool failed() const { return hasFailed; }
  int64_t opset() const { return version; }
  OpBuilder &builder() { return bodyBuilder; }

  /// The value of that name; makes the argument or the constant at the first
  /// use of an initializer.
  Value lookup(llvm::StringRef name);
  /// The same of an initializer of 4-bit numbers, which no other op reads: its
  /// bytes, as uint8 with half the last dim. `type` is then INT4 or UINT4, else
  /// UNDEFINED.
  Value lookupPacked(llvm::StringRef name, int &type);
  void define(llvm::StringRef name, Value value);
  Value addConstant(DenseElementsAttr value);
  /// A tensor that is no initializer (of a Constant node).
  Value addTensor(const pb::TensorProto &tensor, llvm::StringRef name);

  /// Imports the nodes of a subgraph in place, in file order; the names of the
  /// graphs around it are visible. `what` names its node in errors.
  bool addBranch(const pb::GraphProto &branch, llvm::StringRef what);
  /// The same for the body of a loop, whose inputs are `inputs`: gives its
  /// outputs, and forgets its names, so that it can be imported again.
  bool addIteration(const pb::GraphProto &body, llvm::StringRef what,
                    llvm::ArrayRef<Value> inputs,
                    llvm::SmallVectorImpl<Value> &outputs);

  /// Values whose size is data, by name; they are not among the others.
  llvm::StringMap<Segment> segments;
  /// How experts' rows are sorted and counted: `histograms` gives the bins that
  /// were counted, `runningSums` what was summed.
  llvm::SmallVector<RowOrder> rowOrders;
  llvm::DenseMap<Value, Value> histograms, runningSums;

  //===--- known elements (Fold.cpp) --------------------------------------===//
  const Known *known(Value value) const;
  void setKnown(Value value, Known elements);
  /// A new op, all of whose operands may be known: gives the constant that
  /// replaces it, or its result.
  Value fold(Operation *op);
  DenseElementsAttr makeElements(RankedTensorType type, const Known &elements);

private:
  bool readVersion();
  bool checkOperators();
  bool sort();
  bool bindSymbols();
  bool addInputs();
  bool addNodes();
  bool addNode(const pb::GraphProto &owner, int index);
  bool addResults();
  void cleanUp();
  bool constantInput(const pb::ValueInfoProto &input, llvm::StringRef text);
  /// Names of the dims of an input: "batch", or "" for a fixed size.
  std::vector<std::string> dimNames(const pb::ValueInfoProto &value);
  /// Static shape; `names` from dimNames. Nothing if a symbol is unbound.
  std::optional<std::vector<int64_t>>
  staticShape(const pb::ValueInfoProto &value,
              llvm::ArrayRef<std::string> names);
  bool expectTensor(const pb::ValueInfoProto &value, llvm::StringRef what);

  MLIRContext *context;
  const ModelFile &file;
  const pb::GraphProto &graph;
  const ImportOptions &options;
  ParameterNames names;
  TensorReader tensors;
  int64_t version = 0;
  bool hasFailed = false;

  std::vector<int> order; ///< of the nodes
  int branchDepth = 0;
  int64_t unrolledNodes = 0;
  /// The declared shapes of outputs may be those of the other branch.
  bool hasBranches = false;
  SymbolSizes sizes;
  llvm::StringMap<std::vector<std::string>> renamedDims;
  llvm::StringMap<const pb::TensorProto *> initializers;
  llvm::StringMap<FirstReader> firstReaders;
  llvm::StringMap<Value> values;
  llvm::StringMap<Value> packedValues;
  llvm::DenseMap<Value, Known> knownValues;

  OwningOpRef<ModuleOp> module;
  func::FuncOp function;
  OpBuilder bodyBuilder;
  Operation *lastConstant = nullptr;
};

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_GRAPHIMPORTER_H
