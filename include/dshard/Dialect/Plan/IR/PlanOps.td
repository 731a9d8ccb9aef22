//===- PlanOps.td - The plan as IR ------------------------------*- tablegen -*-===//
#ifndef DSHARD_DIALECT_PLAN_IR_PLANOPS_TD
#define DSHARD_DIALECT_PLAN_IR_PLANOPS_TD

include "dshard/Dialect/DShard/IR/DShardAttrs.td"

def Plan_Dialect : Dialect {
  let name = "plan";
  let cppNamespace = "::mlir::plan";
  let summary = "A sharded execution plan, 1:1 with plan.fbs";
  let description = [{
    Everything is decided here: `emitPlan` (Conversion/DShardToPlan) writes a module of this
    dialect to a file without looking at anything else. The tables of the file are
    ops in the module's body; an index in the file is the position among the ops of one kind.

    Discardable attributes of the module: `dshard.mesh`, and `plan.compiler`, `plan.options`,
    `plan.model`, `plan.model_folder`, `plan.model_hash`, `plan.target`, `plan.features`.

    **Constraints**, checked before a module is written (`plan::verifyReferences`)
    - (plan_ir_c1) an index names an op of its kind: of a file or an image one that stands before,
      of a port a buffer of the entry's program.
    - (plan_ir_c2) types are tensors of known sizes.
    - (plan_ir_c3) sizes, offsets of buffers and stages are not negative.
    - (plan_ir_c4) values are numbers, tables, scalars or loop indices; kernels, sources and groups
      literals; a range has two numbers, or three.
    - (plan_ir_c5) a module holds nothing but ops of this dialect, an entry nothing but ports.
    - (plan_ir_c6) axes are those of `dshard.mesh`; shardings suit the global types.
    - (plan_ir_c7) an entry with `stages` has as many as the mesh axis `pp` has coordinates.

    The instructions are exactly those of Plan/Instructions.def: their uses and values have the
    names and the order of that table, which parser, printer and verifier read.
  }];
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
  let dependentDialects = ["::mlir::dshard::DShardDialect"];
}

def Plan_Buffer : TypeDef<Plan_Dialect, "Buffer"> {
  let mnemonic = "buffer";
  let summary = "a typed place of a program";
}

// A value that is not a literal.
class Plan_ValueAttr<string name, string attrMnemonic, string what> : AttrDef<Plan_Dialect, name> {
  let mnemonic = attrMnemonic;
  let summary = what;
  let parameters = (ins "int64_t":$index);
  let assemblyFormat = "`<` $index `>`";
}
def Plan_TableAttr : Plan_ValueAttr<"TableRef", "table", "the entry of a rank table for this rank">;
def Plan_ScalarAttr : Plan_ValueAttr<"ScalarRef", "scalar", "the value of a scalar">;
def Plan_LoopAttr : Plan_ValueAttr<"LoopIndex", "loop", "the index of an enclosing repeat; 0 is the innermost">;

class Plan_Op<string mnemonic, list<Trait> traits = []> : Op<Plan_Dialect, mnemonic, traits>;

//===----------------------------------------------------------------------===//
// Tables of the plan
//===----------------------------------------------------------------------===//

def Plan_GroupOp : Plan_Op<"group"> {
  let summary = "declare a group: ranks that differ only in these axes";
  let arguments = (ins DShard_AxisListAttr:$axes);
  let assemblyFormat = "`over` $axes attr-dict";
}
def Plan_TableOp : Plan_Op<"table"> {
  let summary = "declare numbers that depend on the rank, row-major over the coordinates of mesh axes";
  let arguments = (ins DenseI64ArrayAttr:$axes, DenseI64ArrayAttr:$values);
  let assemblyFormat = "`over` $axes $values attr-dict";
}
def Plan_FileOp : Plan_Op<"file"> {
  let summary = "declare a weight file";
  let arguments = (ins StrAttr:$path, UI64Attr:$size);
  let assemblyFormat = "$path `size` $size attr-dict";
}
def Plan_SourceOp : Plan_Op<"source"> {
  let summary = "declare where the bytes of a parameter lie";
  let arguments = (ins I64Attr:$file, DShard_WeightAttr:$weight);
  let assemblyFormat = "$weight `file` $file attr-dict";
}
def Plan_StateOp : Plan_Op<"state"> {
  let summary = "declare a persistent buffer";
  let description = [{
    `initializer` is none, load or zero; `packed` says that it holds a packed operand of a matmul,
    `written` that programs other than `load` write it, `stage` which virtual stage holds it
    (all, where absent).
  }];
  let arguments = (ins StrAttr:$name, StrAttr:$role, StrAttr:$initializer, UnitAttr:$packed, UnitAttr:$written,
                       TypeAttr:$global, TypeAttr:$local, OptionalAttr<DShard_ShardingAttr>:$sharding,
                       I64Attr:$offset, I64Attr:$size, OptionalAttr<I64Attr>:$stage);
  let assemblyFormat = [{
    $name $role `init` $initializer (`packed` $packed^)? (`written` $written^)? `offset` $offset `size` $size
    (`stage` $stage^)? (`sharding` $sharding^)? attr-dict `:` $global `local` $local
  }];
}
def Plan_ScalarOp : Plan_Op<"scalar"> {
  let summary = "declare a word that the host sets";
  let arguments = (ins StrAttr:$name, TypeAttr:$type, F64Attr:$initial);
  let assemblyFormat = "$name `initial` $initial attr-dict `:` $type";
}
def Plan_ImageOp : Plan_Op<"image"> {
  let summary = "hold the code of all kernels";
  let description = [{`ptx`: text for a GPU that ends in a zero byte; else an ELF image.}];
  let arguments = (ins StrAttr:$bytes, UnitAttr:$ptx);
  let assemblyFormat = "(`ptx` $ptx^)? $bytes attr-dict";
}
def Plan_KernelOp : Plan_Op<"kernel"> {
  let summary = "declare a generated function";
  let description = [{
    On a CPU: the offset of its code, its iterations, and how few of them are worth a thread. On a
    GPU these are 0, and it has thread blocks (`grid`) of `block` threads with `shared` bytes of
    dynamic shared memory each.
  }];
  let arguments = (ins StrAttr:$name, I64Attr:$image, I64Attr:$entry, I64Attr:$extent, I64Attr:$grain, I64Attr:$buffers,
                       OptionalAttr<I64Attr>:$grid, OptionalAttr<I64Attr>:$block, OptionalAttr<I64Attr>:$shared);
  let assemblyFormat = [{
    $name `image` $image `entry` $entry `extent` $extent `grain` $grain `buffers` $buffers
    (`grid` $grid^)? (`block` $block^)? (`shared` $shared^)? attr-dict
  }];
}
def Plan_EntryOp : Plan_Op<"entry", [NoTerminator, SingleBlock]> {
  let summary = "declare an entry point with its ports";
  let description = [{
    `stages`: how many programs it has, one per virtual stage, from `program` on (1 where absent);
    `micro_batches`: how many each of them runs (1 where absent).
  }];
  let arguments = (ins StrAttr:$name, I64Attr:$program, OptionalAttr<I64Attr>:$stages,
                       OptionalAttr<I64Attr>:$micro_batches);
  let regions = (region SizedRegion<1>:$ports);
  let assemblyFormat = [{
    $name `program` $program (`stages` $stages^)? (`micro_batches` $micro_batches^)? attr-dict-with-keyword $ports
  }];
}
class Plan_PortOp<string mnemonic> : Plan_Op<mnemonic, [HasParent<"EntryOp">]> {
  let arguments = (ins StrAttr:$name, I64Attr:$buffer, TypeAttr:$global, TypeAttr:$local,
                       OptionalAttr<DShard_ShardingAttr>:$sharding, OptionalAttr<StrArrayAttr>:$dim_names,
                       OptionalAttr<DenseI64ArrayAttr>:$range, OptionalAttr<StrArrayAttr>:$finite,
                       OptionalAttr<DShard_SequenceLayoutAttr>:$layout, OptionalAttr<I64Attr>:$layout_dim,
                       OptionalAttr<I64Attr>:$layout_parts, OptionalAttr<I64Attr>:$stage);
  let assemblyFormat = [{
    $name `buffer` $buffer (`stage` $stage^)? (`dims` $dim_names^)? (`range` $range^)? (`finite` $finite^)?
    (`layout` $layout^)? (`of` $layout_dim^)? (`parts` $layout_parts^)? (`sharding` $sharding^)?
    attr-dict `:` $global `local` $local
  }];
}
def Plan_InputOp : Plan_PortOp<"input"> { let summary = "declare an input: the global tensor, and where its shard lies"; }
def Plan_OutputOp : Plan_PortOp<"output"> { let summary = "declare an output"; }

//===----------------------------------------------------------------------===//
// Programs
//===----------------------------------------------------------------------===//

def Plan_ProgramOp : Plan_Op<"program", [NoTerminator, SingleBlock]> {
  let summary = "hold the buffers and instructions of one virtual stage";
  let description = [{A program named `load` is the plan's load program. Buffers come before instructions.}];
  let arguments = (ins StrAttr:$name, I64Attr:$stage, I64Attr:$arena_size, I64Attr:$thread_scratch);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$name `stage` $stage `arena` $arena_size `scratch` $thread_scratch attr-dict-with-keyword $body";
}
def Plan_BufferOp : Plan_Op<"buffer"> {
  let summary = "declare a place in the arena, in a state, inside another buffer, or a scalar's word";
  let description = [{
    `offset` counts bytes in the arena or in the state's own bytes; of a view (`of %base`), in the base.
    `copies`: one for each micro-batch, of which instructions use that of their action.
  }];
  let arguments = (ins StrAttr:$name, Optional<Plan_Buffer>:$base, OptionalAttr<I64Attr>:$state,
                       OptionalAttr<I64Attr>:$scalar, I64Attr:$offset, I64Attr:$size,
                       OptionalAttr<I64Attr>:$copies, TypeAttr:$type);
  let results = (outs Plan_Buffer:$result);
  let assemblyFormat = [{
    $name (`of` $base^)? (`in` `state` $state^)? (`scalar` $scalar^)? `offset` $offset `size` $size
    (`copies` $copies^)? attr-dict `:` $type
  }];
}
def Plan_RepeatOp : Plan_Op<"repeat", [NoTerminator, SingleBlock]> {
  let summary = "run the instructions of a block a number of times";
  let arguments = (ins AnyAttr:$count);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$count attr-dict-with-keyword $body";
}
def Plan_IfOp : Plan_Op<"if", [NoTerminator, SingleBlock]> {
  let summary = "run one of two blocks";
  let arguments = (ins AnyAttr:$condition);
  let regions = (region SizedRegion<1>:$then_body, SizedRegion<1>:$else_body);
  let assemblyFormat = "$condition attr-dict-with-keyword $then_body `else` $else_body";
}
def Plan_CallOp : Plan_Op<"call", [NoTerminator, SingleBlock]> {
  let summary = "run the instructions of a block";
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "attr-dict-with-keyword $body";
}

//===----------------------------------------------------------------------===//
// Instructions
//===----------------------------------------------------------------------===//

// Printed as
//   plan.matmul lhs(%0) rhs(%1) bias(%2) -> out(%3) {batch = 1, m = 16, ...} path "up_proj" node "/fc1"
// `segments` holds the number of buffers of every use in Instructions.def (0: an
// absent optional one). `values` are integers, floats (for `..._bits`), or
// #plan.table, #plan.scalar, #plan.loop. `stream` (0 where absent) is among the attributes behind.
//
// Constraints
// - (instruction_c1) uses and values have the layout of Instructions.def.
class Plan_Instruction<string mnemonic, string what> : Plan_Op<mnemonic> {
  let summary = what;
  let arguments = (ins Variadic<Plan_Buffer>:$uses, DenseI32ArrayAttr:$segments, ArrayAttr:$values,
                       OptionalAttr<StrAttr>:$path, OptionalAttr<StrAttr>:$node, OptionalAttr<StrAttr>:$why,
                       OptionalAttr<DShard_PartAttr>:$part, OptionalAttr<I64Attr>:$stream);
  let hasCustomAssemblyFormat = 1;
  let hasVerifier = 1;
  let extraClassDefinition = [{
    ::mlir::ParseResult $cppClass::parse(::mlir::OpAsmParser &parser, ::mlir::OperationState &result) {
      return ::mlir::plan::parseInstruction(parser, result);
    }
    void $cppClass::print(::mlir::OpAsmPrinter &printer) { ::mlir::plan::printInstruction(printer, getOperation()); }
    ::mlir::LogicalResult $cppClass::verify() { return ::mlir::plan::verifyInstruction(getOperation()); }
  }];
}
def Plan_RecordOp : Plan_Instruction<"record", "record an event">;
def Plan_WaitOp : Plan_Instruction<"wait", "wait for an event">;
def Plan_LoadSliceOp : Plan_Instruction<"load_slice", "read a box of a weight source">;
def Plan_PackRhsOp : Plan_Instruction<"pack_rhs", "pack columns of a matmul's operand">;
def Plan_FillOp : Plan_Instruction<"fill", "fill a buffer with one value">;
def Plan_CopyOp : Plan_Instruction<"copy", "copy elements with strides">;
def Plan_LaunchOp : Plan_Instruction<"launch", "run a generated kernel">;
def Plan_MatmulOp : Plan_Instruction<"matmul", "multiply (batches of) matrices">;
def Plan_MatmulNBitsOp : Plan_Instruction<"matmul_nbits", "multiply by a block-quantised matrix">;
def Plan_GroupedMatmulOp : Plan_Instruction<"grouped_matmul", "multiply every row with the matrix of its group">;
def Plan_GroupedWeightGradOp : Plan_Instruction<"grouped_weight_grad", "contract the rows of each group">;
def Plan_AttentionOp : Plan_Instruction<"attention", "compute scaled dot-product attention">;
def Plan_AttentionGradOp : Plan_Instruction<"attention_grad", "compute the gradients of attention's operands">;
def Plan_AllGatherOp : Plan_Instruction<"all_gather", "concatenate the shards of a group">;
def Plan_AllReduceOp : Plan_Instruction<"all_reduce", "reduce over a group">;
def Plan_ReduceScatterOp : Plan_Instruction<"reduce_scatter", "reduce over a group and keep the own shard">;
def Plan_AllToAllOp : Plan_Instruction<"all_to_all", "move a sharding from one dim to another">;
def Plan_BroadcastOp : Plan_Instruction<"broadcast", "give every member the root's value">;
def Plan_PermuteOp : Plan_Instruction<"permute", "pass values around a ring">;
def Plan_SendOp : Plan_Instruction<"send", "send to a member of a group">;
def Plan_RecvOp : Plan_Instruction<"recv", "receive from a member of a group">;

#endif
