//===- SessionText.cpp - What messages about a session say ----------------===//

#include "dshard/Runtime/Session.h"

using namespace dshard;

std::string
dshard::notFiniteText(const std::vector<Session::NotFinite> &found) {
  size_t others = found.size() - 1;
  std::string rest = " and of " + std::to_string(others) +
                     (others > 1 ? " others are" : " other are");
  return "gradient of '" + found[0].name + "'" + (others ? rest : " is") +
         " not finite";
}

std::string dshard::dimsText(const std::vector<int64_t> &dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i)
    text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + "]";
}
