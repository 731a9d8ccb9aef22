//===- KernelCases.cpp - Cases for generated kernels, CPU and CUDA --------===//

#include "KernelCases.h"
#include "dshard/Support/Half.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Parser/Parser.h"
#include "gtest/gtest.h"

#include <cmath>
#include <cstring>
#include <random>

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::testing;

Case mlir::dshard::testing::op(std::string name,
                               std::vector<std::string> arguments,
                               std::string result, std::string attributes,
                               double low, double high) {
  std::string operands, types;
  for (size_t i = 0; i < arguments.size(); ++i) {
    operands += (i ? ", %" : "%") + std::to_string(i);
    types += (i ? ", " : "") + arguments[i];
  }
  return {name + " " + result + " " + attributes,
          arguments,
          result,
          "%r = dshard." + name + " " + operands + " " + attributes + " : (" +
              types + ") -> " + result,
          low,
          high};
}

std::vector<Case> mlir::dshard::testing::pointwiseCases() {
  std::vector<Case> cases;
  const char *shapes[] = {"3x37", "64", "2x5x16", "1", ""};
  auto tensor = [](std::string shape, std::string type) {
    return "tensor<" + shape + (shape.empty() ? "" : "x") + type + ">";
  };
  for (std::string type : {"f32", "bf16", "f16", "f64"})
    for (std::string shape : shapes) {
      if (type != "f32" && shape == "64")
        continue;
      std::string t = tensor(shape, type);
      for (std::string name :
           {"neg", "abs", "exp", "sin", "cos", "atan", "tanh", "erf", "sigmoid",
            "silu", "relu", "floor", "ceil", "round", "sign"})
        cases.push_back(op(name, {t}, t));
      for (std::string form : {"", "{tanh_approximation}"}) {
        cases.push_back(op("gelu", {t}, t, form));
        cases.back().scale = 1; // 1 + erf(x), x < 0
      }
      for (std::string name : {"log", "sqrt", "rsqrt", "reciprocal"})
        cases.push_back(op(name, {t}, t, "", 0.01, 50));
      for (std::string name :
           {"add", "sub", "mul", "div", "max", "min", "swiglu", "mod"})
        cases.push_back(op(name, {t, t}, t));
      cases.push_back(op("mod", {t, t}, t, "{fmod}"));
      cases.push_back(op("pow", {t, t}, t, "", 0.1, 3));
      cases.push_back(op("is_nan", {t}, tensor(shape, "i1")));
      for (std::string predicate : {"eq", "ne", "lt", "le", "gt", "ge"})
        cases.push_back(
            op("compare", {t, t}, tensor(shape, "i1"),
               "{predicate = #dshard.predicate<" + predicate + ">}"));
      cases.push_back(op("select", {tensor(shape, "i1"), t, t}, t));
      for (std::string other :
           {"f32", "bf16", "f16", "f64", "i64", "i32", "i1", "i8"})
        cases.push_back(op("cast", {t}, tensor(shape, other)));
    }
  for (std::string type : {"i64", "i32", "i8"})
    for (std::string shape : {"3x37", "7"}) {
      std::string t = tensor(shape, type);
      for (std::string name : {"neg", "abs", "sign", "relu"})
        cases.push_back(op(name, {t}, t, "", -100, 100));
      for (std::string name : {"add", "sub", "max", "min", "mod"})
        cases.push_back(op(name, {t, t}, t, "", -60, 60));
      cases.push_back(op("mul", {t, t}, t, "", -11, 11));
      for (std::string name : {"bit_and", "bit_or", "bit_xor"})
        cases.push_back(op(name, {t, t}, t, "", -60, 60));
      for (std::string name : {"shift_left", "shift_right"})
        cases.push_back(op(name, {t, t}, t, "", -2, 10));
      cases.push_back(op("div", {t, t}, t, "", 1, 100));
      cases.push_back(op("mod", {t, t}, t, "{fmod}", 1, 100));
      cases.push_back(op("compare", {t, t}, tensor(shape, "i1"),
                         "{predicate = #dshard.predicate<le>}", -5, 5));
      for (std::string other : {"f32", "bf16", "f64", "i64", "i32", "i1"})
        cases.push_back(op("cast", {t}, tensor(shape, other), "", -100, 100));
    }
  for (auto [from, to] : {std::pair("f32", "i32"),
                          {"i32", "f32"},
                          {"f64", "i64"},
                          {"f16", "i16"}})
    cases.push_back(
        op("bit_cast", {tensor("3x37", from)}, tensor("3x37", to), "", 1, 9));
  for (std::string shape : {"3x37", "16"}) {
    std::string t = tensor(shape, "i1");
    for (std::string name : {"and", "or", "xor"})
      cases.push_back(op(name, {t, t}, t));
    cases.push_back(op("not", {t}, t));
    for (std::string other : {"f32", "i64", "bf16"})
      cases.push_back(op("cast", {t}, tensor(shape, other)));
  }
  // Broadcasting.
  cases.push_back(op("add", {"tensor<3x4x37xf32>", "tensor<37xf32>"},
                     "tensor<3x4x37xf32>"));
  cases.push_back(op("mul", {"tensor<3x1x32xf32>", "tensor<5x1xf32>"},
                     "tensor<3x5x32xf32>"));
  cases.push_back(
      op("sub", {"tensor<bf16>", "tensor<5x17xbf16>"}, "tensor<5x17xbf16>"));
  // Large angles, the quadrants of rotary tables.
  cases.push_back(
      op("sin", {"tensor<64xf32>"}, "tensor<64xf32>", "", -9e3, 9e3));
  cases.push_back(
      op("cos", {"tensor<64xf64>"}, "tensor<64xf64>", "", -9e3, 9e3));
  // All three ranges of the arc tangent.
  for (std::string type : {"tensor<64xf32>", "tensor<64xf64>"})
    cases.push_back(op("atan", {type}, type, "", -20, 20));
  cases.push_back(op("exp", {"tensor<64xf32>"}, "tensor<64xf32>", "", -80, 80));
  cases.push_back(
      op("exp", {"tensor<64xf64>"}, "tensor<64xf64>", "", -700, 700));
  cases.push_back(op("pow", {"tensor<64xf64>", "tensor<64xf64>"},
                     "tensor<64xf64>", "", 0.01, 30));
  return cases;
}

std::vector<Case> mlir::dshard::testing::otherCases() {
  std::vector<Case> cases;
  for (std::string type : {"f32", "bf16", "f16", "f64"}) {
    auto t = [&](std::string shape) {
      return "tensor<" + shape + "x" + type + ">";
    };
    for (std::string d : {"64", "37", "3"}) {
      cases.push_back(op("rms_norm", {t("2x5x" + d), t(d)}, t("2x5x" + d),
                         "{epsilon = 1.0e-6}"));
      cases.push_back(op("layer_norm", {t("7x" + d), t(d), t(d)}, t("7x" + d),
                         "{epsilon = 1.0e-5}"));
      cases.push_back(op("layer_norm", {t("7x" + d), t(d)}, t("7x" + d),
                         "{epsilon = 1.0e-5}"));
      cases.push_back(
          op("softmax", {t("3x4x" + d)}, t("3x4x" + d), "{dim = 2}"));
      cases.push_back(
          op("softmax", {t("3x4x" + d)}, t("3x4x" + d), "{dim = 1}"));
      for (std::string kind : {"sum", "max", "min", "mean"}) {
        std::string k = "{kind = #dshard<reduction " + kind + ">, dims = ";
        cases.push_back(
            op("reduce", {t("3x4x" + d)}, t("3x4"), k + "array<i64: 2>}"));
        cases.push_back(op("reduce", {t("3x4x" + d)}, t("3x4x1"),
                           k + "array<i64: 2>, keep_dims}"));
        cases.push_back(
            op("reduce", {t("3x4x" + d)}, t("3x" + d), k + "array<i64: 1>}"));
        cases.push_back(op("reduce", {t("3x4x" + d)}, "tensor<" + type + ">",
                           k + "array<i64: 0, 1, 2>}"));
        cases.push_back(
            op("reduce", {t("3x4x" + d)}, t("4"), k + "array<i64: 0, 2>}"));
      }
    }
    cases.push_back(
        op("reduce", {t("3x7")}, t("3"),
           "{kind = #dshard<reduction product>, dims = array<i64: 1>}"));
    for (std::string d : {"32", "6"}) {
      std::string half = d == "32" ? "16" : "3";
      cases.push_back(op("rotary",
                         {t("2x3x5x" + d), t("1x5x" + half), t("1x5x" + half)},
                         t("2x3x5x" + d)));
      cases.push_back(op("rotary",
                         {t("2x3x5x" + d), t("2x5x" + half), t("2x5x" + half)},
                         t("2x3x5x" + d), "{interleaved}"));
    }
    cases.push_back(op("matmul", {t("2x3x5x7"), t("2x1x7x20")}, t("2x3x5x20")));
    cases.push_back(op("matmul", {t("7x5"), t("20x7")}, t("5x20"),
                       "{transpose_lhs, transpose_rhs}"));
    cases.push_back(
        op("iota", {}, t("5x33"), "{dim = 1 : i64, start = 0.5, step = 0.25}"));
  }
  for (std::string type : {"f32", "bf16", "i64", "i1", "i32"}) {
    auto t = [&](std::string shape) {
      return "tensor<" + shape + "x" + type + ">";
    };
    cases.push_back(op("reshape", {t("6x32")}, t("2x3x32")));
    cases.push_back(op("reshape", {t("6x35")}, t("2x105")));
    cases.push_back(op("transpose", {t("2x3x5x16")}, t("2x5x3x16"),
                       "{permutation = array<i64: 0, 2, 1, 3>}"));
    cases.push_back(op("transpose", {t("9x33")}, t("33x9"),
                       "{permutation = array<i64: 1, 0>}"));
    cases.push_back(op("broadcast_to", {t("3x1")}, t("2x3x20")));
    cases.push_back(op("broadcast_to", {t("20")}, t("2x3x20")));
    cases.push_back(op("concat", {t("3x16"), t("3x32"), t("3x16")}, t("3x64"),
                       "{dim = 1 : i64}"));
    cases.push_back(
        op("concat", {t("3x7"), t("3x2")}, t("3x9"), "{dim = 1 : i64}"));
    cases.push_back(
        op("concat", {t("3x17"), t("1x17")}, t("4x17"), "{dim = 0 : i64}"));
    cases.push_back(
        op("slice", {t("9x40")}, t("3x16"),
           "{starts = array<i64: 8, 3>, strides = array<i64: -3, 2>}"));
    cases.push_back(
        op("slice", {t("9x40")}, t("9x32"),
           "{starts = array<i64: 0, 8>, strides = array<i64: 1, 1>}"));
    cases.push_back(
        op("pad", {t("3x16")}, t("6x32"),
           "{low = array<i64: 1, 16>, high = array<i64: 2, 0>, value = 1.0}"));
    cases.push_back(
        op("pad", {t("3x5")}, t("3x8"),
           "{low = array<i64: 0, 1>, high = array<i64: 0, 2>, value = 1.0}"));
    Case gather = op("gather", {t("7x20"), "tensor<2x3xi64>"}, t("2x3x20"),
                     "{dim = 0 : i64}", 0, 6.99);
    cases.push_back(gather);
    cases.push_back(op("gather", {t("5x7"), "tensor<4xi32>"}, t("5x4"),
                       "{dim = 1 : i64}", -7, 6.99));
    cases.push_back(op("gather", {t("4x20"), "tensor<2x3xi64>", "tensor<i64>"},
                       t("2x3x20"), "{dim = 0 : i64}", 0, 9));
    cases.push_back(op("gather_nd", {t("5x6x20"), "tensor<3x2xi64>"}, t("3x20"),
                       "", 0, 4.99));
    cases.push_back(op("gather_nd", {t("3x6"), "tensor<3x4x1xi64>"}, t("3x4"),
                       "{batch_dims = 1 : i64}", 0, 5.99));
  }
  cases.push_back(op("iota", {}, "tensor<33xi64>",
                     "{dim = 0 : i64, start = -2.0, step = 3.0}"));
  cases.push_back(op("reduce", {"tensor<3x37xi64>"}, "tensor<3xi64>",
                     "{kind = #dshard<reduction min>, dims = array<i64: 1>}",
                     -100, 100));
  cases.push_back(op("reduce", {"tensor<3x37xi32>"}, "tensor<3xi32>",
                     "{kind = #dshard<reduction max>, dims = array<i64: 1>}",
                     -100, -1));
  cases.push_back(op("reduce", {"tensor<3x37xi64>"}, "tensor<37xi64>",
                     "{kind = #dshard<reduction sum>, dims = array<i64: 0>}",
                     -100, 100));
  cases.push_back(op("matmul", {"tensor<3x5xi64>", "tensor<5x4xi64>"},
                     "tensor<3x4xi64>", "", -20, 20));
  return cases;
}

/// What training adds: sums over leading dims, sums by index, the optimizer.
std::vector<Case> mlir::dshard::testing::trainingCases() {
  std::vector<Case> cases;
  for (std::string type : {"f32", "bf16", "f16", "f64"}) {
    auto t = [&](std::string shape) {
      return "tensor<" + shape + "x" + type + ">";
    };
    std::string sum = "{kind = #dshard<reduction sum>, dims = array<i64: ";
    for (std::string d : {"64", "200", "1031"}) {
      cases.push_back(op("reduce", {t("9x" + d)}, t(d), sum + "0>}", 0));
      cases.push_back(op("reduce", {t("3x5x" + d)}, t("1x1x" + d),
                         sum + "0, 1>, keep_dims}", 0));
    }
    std::string norm = "tensor<3x5x130x" + type + ">",
                row = "tensor<3x5x1x" + type + ">";
    cases.push_back({"gradient of a norm " + type,
                     {norm, norm, row},
                     t("130"),
                     "%a = dshard.mul %0, %1 : (" + norm + ", " + norm +
                         ") -> " + norm + "\n%b = dshard.mul %a, %2 : (" +
                         norm + ", " + row + ") -> " + norm +
                         "\n%r = dshard.reduce %b " + sum + "0, 1>} : (" +
                         norm + ") -> " + t("130"),
                     0});
    if (type == "bf16" || type == "f16")
      continue; // every addition rounds: more than one unit in the last place
    for (std::string d : {"x20", "x37", "x4x24", ""}) {
      auto scatter = [&](std::string updates, std::string indices,
                         std::string result, std::string dim,
                         bool shifted = false) {
        std::vector<std::string> arguments = {"tensor<" + indices + "xi64>",
                                              t(updates + d)};
        if (shifted)
          arguments.push_back("tensor<i64>");
        cases.push_back(op("scatter_add", arguments, t(result + d),
                           "{dim = " + dim + " : i64}", -8, 9));
      };
      scatter("5", "5", "7", "0");
      scatter("5", "5", "7", "0", /*shifted=*/true);
      scatter("2x3", "2x3", "7", "0");
      scatter("4x5", "5", "4x7", "1");
    }
    std::string w = t("333"), s = "tensor<" + type + ">";
    cases.push_back(
        {"adamw " + type,
         {w, w, w, w, s, s, s, s},
         w + ", " + w + ", " + w,
         "%on = dshard.constant dense<true> : tensor<i1>\n"
         "%r, %m, %v = dshard.adamw %0, %1, %2, %3, %4, %5, %6, %7, %on {beta1 "
         "= 0.5, beta2 = 0.75, epsilon = 0.5, weight_decay = 0.25} : (" +
             w + ", " + w + ", " + w + ", " + w + ", " + s + ", " + s + ", " +
             s + ", " + s + ", tensor<i1>) -> (" + w + ", " + w + ", " + w +
             ")",
         0.25,
         1,
         "%r, %m, %v",
         /*scale=*/1});
  }
  // Corrections of AdamW: 1 - beta^step, with the steps that f32 would lose.
  cases.push_back({"correction",
                   {"tensor<i64>"},
                   "tensor<f32>",
                   R"(%b = dshard.constant dense<0.999> : tensor<f64>
          %o = dshard.constant dense<1.0> : tensor<f64>
          %s = dshard.cast %0 : (tensor<i64>) -> tensor<f64>
          %p = dshard.pow %b, %s : (tensor<f64>, tensor<f64>) -> tensor<f64>
          %c = dshard.sub %o, %p : (tensor<f64>, tensor<f64>) -> tensor<f64>
          %r = dshard.cast %c : (tensor<f64>) -> tensor<f32>)"});
  // The gradient of the logits, in one pass.
  cases.push_back(
      {"cross entropy",
       {"tensor<6x50xf32>", "tensor<6x1xf32>", "tensor<6xi64>", "tensor<f32>"},
       "tensor<6x50xf32>",
       R"(%d = dshard.sub %0, %1 : (tensor<6x50xf32>, tensor<6x1xf32>) -> tensor<6x50xf32>
          %e = dshard.exp %d : (tensor<6x50xf32>) -> tensor<6x50xf32>
          %i = dshard.iota {dim = 1 : i64} : () -> tensor<1x50xi64>
          %l = dshard.reshape %2 : (tensor<6xi64>) -> tensor<6x1xi64>
          %c = dshard.compare %i, %l {predicate = #dshard.predicate<eq>} : (tensor<1x50xi64>, tensor<6x1xi64>) -> tensor<6x50xi1>
          %h = dshard.cast %c : (tensor<6x50xi1>) -> tensor<6x50xf32>
          %g = dshard.sub %e, %h : (tensor<6x50xf32>, tensor<6x50xf32>) -> tensor<6x50xf32>
          %r = dshard.mul %g, %3 : (tensor<6x50xf32>, tensor<f32>) -> tensor<6x50xf32>)",
       0,
       3});
  return cases;
}

std::vector<Case> mlir::dshard::testing::fusedCases() {
  return {
      // Behind a slice lanes begin anywhere, also across the seam of a concat,
      // a row of a reshape and the edge of a pad.
      {"slice of concat",
       {"tensor<6x2xf32>", "tensor<6x2xf32>"},
       "tensor<1x23xf32>",
       R"(%c = dshard.concat %0, %1 {dim = 0 : i64} : (tensor<6x2xf32>, tensor<6x2xf32>) -> tensor<12x2xf32>
          %f = dshard.reshape %c : (tensor<12x2xf32>) -> tensor<1x24xf32>
          %r = dshard.slice %f {starts = array<i64: 0, 1>, strides = array<i64: 1, 1>} : (tensor<1x24xf32>) -> tensor<1x23xf32>)"},
      {"slice along concat",
       {"tensor<3x16xf32>", "tensor<3x32xf32>"},
       "tensor<3x43xf32>",
       R"(%c = dshard.concat %0, %1 {dim = 1 : i64} : (tensor<3x16xf32>, tensor<3x32xf32>) -> tensor<3x48xf32>
          %r = dshard.slice %c {starts = array<i64: 0, 5>, strides = array<i64: 1, 1>} : (tensor<3x48xf32>) -> tensor<3x43xf32>)"},
      {"slice of reshape",
       {"tensor<4x16xf32>"},
       "tensor<60xf32>",
       R"(%n = dshard.neg %0 : (tensor<4x16xf32>) -> tensor<4x16xf32>
          %f = dshard.reshape %n : (tensor<4x16xf32>) -> tensor<64xf32>
          %r = dshard.slice %f {starts = array<i64: 3>, strides = array<i64: 1>} : (tensor<64xf32>) -> tensor<60xf32>)"},
      {"slice of pad",
       {"tensor<3x16xf32>"},
       "tensor<3x30xf32>",
       R"(%p = dshard.pad %0 {low = array<i64: 0, 16>, high = array<i64: 0, 0>, value = 1.0} : (tensor<3x16xf32>) -> tensor<3x32xf32>
          %r = dshard.slice %p {starts = array<i64: 0, 2>, strides = array<i64: 1, 1>} : (tensor<3x32xf32>) -> tensor<3x30xf32>)"},
      {"residual and norm",
       {"tensor<2x6x64xf32>", "tensor<2x6x64xf32>", "tensor<64xf32>"},
       "tensor<2x6x64xf32>, tensor<2x6x64xf32>",
       R"(%r = dshard.add %0, %1 : (tensor<2x6x64xf32>, tensor<2x6x64xf32>) -> tensor<2x6x64xf32>
          %s = dshard.rms_norm %r, %2 {epsilon = 1.0e-6} : (tensor<2x6x64xf32>, tensor<64xf32>) -> tensor<2x6x64xf32>)",
       -3,
       3,
       "%r, %s"},
      {"constants inside",
       {"tensor<4x3xf32>"},
       "tensor<4x3xf32>",
       R"(%c = dshard.constant dense<[1.0, 2.0, 4.0]> : tensor<3xf32>
          %h = dshard.constant dense<0.5> : tensor<f32>
          %t = dshard.mul %0, %c : (tensor<4x3xf32>, tensor<3xf32>) -> tensor<4x3xf32>
          %r = dshard.add %t, %h : (tensor<4x3xf32>, tensor<f32>) -> tensor<4x3xf32>)"},
      {"constants of other types",
       {"tensor<3xbf16>", "tensor<3xi64>", "tensor<3xi1>"},
       "tensor<3xbf16>, tensor<3xi64>, tensor<3xi1>",
       R"(%b = dshard.constant dense<[1.5, -2.0, 0.25]> : tensor<3xbf16>
          %r = dshard.mul %0, %b : (tensor<3xbf16>, tensor<3xbf16>) -> tensor<3xbf16>
          %i = dshard.constant dense<[1, -2, 3000000000]> : tensor<3xi64>
          %s = dshard.add %1, %i : (tensor<3xi64>, tensor<3xi64>) -> tensor<3xi64>
          %k = dshard.constant dense<[true, false, true]> : tensor<3xi1>
          %t = dshard.and %2, %k : (tensor<3xi1>, tensor<3xi1>) -> tensor<3xi1>)",
       -3,
       3,
       "%r, %s, %t"},
      {"rotary behind a transpose",
       {"tensor<2x5x96xf32>", "tensor<1x5x16xf32>", "tensor<1x5x16xf32>"},
       "tensor<2x3x5x32xf32>",
       R"(%a = dshard.reshape %0 : (tensor<2x5x96xf32>) -> tensor<2x5x3x32xf32>
          %b = dshard.transpose %a {permutation = array<i64: 0, 2, 1, 3>} : (tensor<2x5x3x32xf32>) -> tensor<2x3x5x32xf32>
          %r = dshard.rotary %b, %1, %2 : (tensor<2x3x5x32xf32>, tensor<1x5x16xf32>, tensor<1x5x16xf32>) -> tensor<2x3x5x32xf32>)"},
      {"mean and centre, two results of different size",
       {"tensor<6x40xf32>"},
       "tensor<6x40xf32>, tensor<6x1xf32>",
       R"(%s = dshard.reduce %0 {kind = #dshard<reduction mean>, dims = array<i64: 1>, keep_dims} : (tensor<6x40xf32>) -> tensor<6x1xf32>
          %d = dshard.sub %0, %s : (tensor<6x40xf32>, tensor<6x1xf32>) -> tensor<6x40xf32>
          %r = dshard.tanh %d : (tensor<6x40xf32>) -> tensor<6x40xf32>)",
       -3,
       3,
       "%r, %s"},
      // Its reciprocal shows the sign of a zero.
      {"ends of the arc tangent",
       {"tensor<f32>"},
       "tensor<7xf32>, tensor<7xf32>",
       R"(%c = dshard.constant dense<[0x7F800000, 0xFF800000, 0x7FC00000, 0.0, -0.0, 1.0e-40, -3.0e38]> : tensor<7xf32>
          %r = dshard.atan %c : (tensor<7xf32>) -> tensor<7xf32>
          %s = dshard.reciprocal %r : (tensor<7xf32>) -> tensor<7xf32>)",
       -3,
       3,
       "%r, %s"},
      {"cosine table",
       {"tensor<16xf32>"},
       "tensor<1x512x16xf32>",
       R"(%p = dshard.iota {dim = 1 : i64} : () -> tensor<1x512x1xi64>
          %f = dshard.cast %p : (tensor<1x512x1xi64>) -> tensor<1x512x1xf32>
          %a = dshard.mul %f, %0 : (tensor<1x512x1xf32>, tensor<16xf32>) -> tensor<1x512x16xf32>
          %r = dshard.cos %a : (tensor<1x512x16xf32>) -> tensor<1x512x16xf32>)"},
  };
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

unsigned mlir::dshard::testing::bytesOf(Type type) {
  return std::max(8u, type.getIntOrFloatBitWidth()) / 8;
}

void mlir::dshard::testing::write(char *at, Type type, double value) {
  auto put = [&](auto number) { std::memcpy(at, &number, sizeof(number)); };
  if (type.isF64())
    put(value);
  else if (type.isF32())
    put(static_cast<float>(value));
  else if (type.isBF16())
    put(::dshard::bfloat16FromFloat(static_cast<float>(value)));
  else if (type.isF16())
    put(::dshard::halfFromFloat(static_cast<float>(value)));
  else if (type.isInteger(64))
    put(static_cast<int64_t>(value));
  else if (type.isInteger(32))
    put(static_cast<int32_t>(value));
  else if (type.isInteger(16))
    put(static_cast<int16_t>(value));
  else
    put(static_cast<int8_t>(value));
}

static double read(const char *at, Type type) {
  auto get = [&](auto number) {
    std::memcpy(&number, at, sizeof(number));
    return number;
  };
  if (type.isF64())
    return get(double());
  if (type.isF32())
    return get(float());
  if (type.isBF16())
    return ::dshard::floatFromBFloat16(get(uint16_t()));
  if (type.isF16())
    return ::dshard::floatFromHalf(get(uint16_t()));
  if (type.isInteger(64))
    return static_cast<double>(get(int64_t()));
  if (type.isInteger(32))
    return get(int32_t());
  if (type.isInteger(16))
    return get(int16_t());
  return get(int8_t());
}

static double tolerance(Type type) {
  if (type.isF64())
    return 1e-12;
  if (type.isF32())
    return 2e-6;
  if (type.isBF16())
    return 8e-3; // one unit in the last place, where f32 and f64 round apart
  if (type.isF16())
    return 1e-3;
  return 0;
}

/// Moves the body of `function` into one fused op before its return.
static FusedOp wrap(func::FuncOp function) {
  Block &block = function.getBody().front();
  Operation *terminator = block.getTerminator();
  OpBuilder b(terminator);
  auto fused =
      FusedOp::create(b, function.getLoc(), terminator->getOperandTypes(),
                      block.getArguments(), StringAttr(), PartAttr());
  Block *body = b.createBlock(&fused.getBody());
  for (Value argument : block.getArguments())
    body->addArgument(argument.getType(), function.getLoc());
  for (Operation &op : llvm::make_early_inc_range(block.without_terminator()))
    if (&op != fused)
      op.moveBefore(body, body->end());
  for (auto [outer, inner] :
       llvm::zip(block.getArguments(), body->getArguments()))
    outer.replaceUsesWithIf(inner, [&](OpOperand &use) {
      return use.getOwner()->getBlock() == body;
    });
  b.setInsertionPointToEnd(body);
  YieldOp::create(b, function.getLoc(), terminator->getOperands());
  // Kernel formation does that too.
  for (auto adamw : llvm::make_early_inc_range(body->getOps<AdamWOp>())) {
    OpBuilder inside(adamw);
    SmallVector<Value> results;
    EXPECT_TRUE(
        succeeded(adamw.decompose(inside, adamw->getOperands(), results)));
    adamw->replaceAllUsesWith(results);
    adamw->erase();
  }
  terminator->setOperands(fused.getResults());
  return fused;
}

bool mlir::dshard::testing::prepare(const Case &test, MLIRContext &context,
                                    Prepared &p) {
  std::string text = "func.func @f(";
  for (size_t a = 0; a < test.arguments.size(); ++a)
    text += (a ? ", %" : "%") + std::to_string(a) + ": " + test.arguments[a];
  text += ") -> (" + test.result + ") {\n" + test.body + "\nreturn " +
          test.results + " : " + test.result + "\n}";
  p.module = parseSourceString<ModuleOp>(text, &context);
  if (!p.module) {
    ADD_FAILURE() << test.name << "\n" << text;
    return false;
  }
  auto function = *p.module->getOps<func::FuncOp>().begin();
  // By its name, so that a new case leaves the values of all others alone.
  std::seed_seq seed(test.name.begin(), test.name.end());
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> draw(test.low, test.high);
  for (Value argument : function.getArguments()) {
    HostTensor tensor(cast<RankedTensorType>(argument.getType()));
    for (double &value : tensor.data) {
      value = draw(generator);
      if (tensor.type.getElementType().isInteger(1))
        value = value > (test.low + test.high) / 2;
      else if (isa<IntegerType>(tensor.type.getElementType()))
        value = std::floor(value);
    }
    // The offset of a sharded look-up lies inside the indices' range.
    if (tensor.type.getRank() == 0 &&
        isa<IntegerType>(tensor.type.getElementType()))
      tensor.data[0] = 3;
    tensor.roundToElementType();
    p.arguments.push_back(std::move(tensor));
  }
  if (failed(interpret(function, p.arguments, Precision::model, p.expected))) {
    ADD_FAILURE() << test.name;
    return false;
  }
  p.fused = wrap(function);
  return true;
}

void mlir::dshard::testing::compare(const Case &test, size_t result,
                                    const HostTensor &want,
                                    const char *memory) {
  Type element = want.type.getElementType();
  double largest = test.scale;
  for (double value : want.data)
    if (std::isfinite(value))
      largest = std::max(largest, std::fabs(value));
  int shown = 0;
  for (int64_t e = 0; e < want.size() && shown < 3; ++e) {
    double got = read(memory + e * bytesOf(element), element),
           expected = want.data[e];
    // An infinity would be allowed an infinite distance.
    bool same =
        (std::isnan(got) && std::isnan(expected)) || got == expected ||
        (std::isfinite(expected) &&
         std::fabs(got - expected) <=
             tolerance(element) * (std::fabs(expected) + 0.05 * largest));
    if (!same) {
      ++shown;
      ADD_FAILURE() << test.name << " result " << result << " element " << e
                    << ": got " << got << ", expected " << expected;
    }
  }
}
