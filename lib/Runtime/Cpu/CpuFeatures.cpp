//===- CpuFeatures.cpp - What this CPU can execute ------------------------===//

#include "dshard/Runtime/Cpu/CpuFeatures.h"

#include "dshard/Support/Text.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

using namespace dshard;

/// The kernel's list: it leaves out what the operating system does not save.
static const std::set<std::string> &flagsOfThisCpu() {
  static const std::set<std::string> flags = [] {
    std::set<std::string> found;
    std::ifstream info("/proc/cpuinfo");
    std::string line, flagsLine;
    while (flagsLine.empty() && std::getline(info, line))
      if (line.compare(0, 6, "flags\t") == 0)
        flagsLine = line;
    std::istringstream words(flagsLine);
    std::string word;
    while (words >> word)
      found.insert(word);
    return found;
  }();
  return flags;
}

/// LLVM's name of a feature as /proc/cpuinfo writes it.
static std::string linuxName(std::string name) {
  static const std::map<std::string, std::string> others = {
      {"sse3", "pni"},
      {"bmi", "bmi1"},
      {"lzcnt", "abm"},
      {"sahf", "lahf_lm"},
      {"64bit", "lm"},
      {"prfchw", "3dnowprefetch"},
      {"rdrnd", "rdrand"},
      {"sha", "sha_ni"},
      {"crc32", "sse4_2"},
      {"x87", "fpu"},
      {"pclmul", "pclmulqdq"},
      {"avx512bf16", "avx512_bf16"},
      {"avx512vnni", "avx512_vnni"},
      {"avx512bitalg", "avx512_bitalg"},
      {"avx512vbmi2", "avx512_vbmi2"},
      {"avx512vpopcntdq", "avx512_vpopcntdq"},
      {"avx512fp16", "avx512_fp16"},
      {"avx512vp2intersect", "avx512_vp2intersect"},
      {"avxvnni", "avx_vnni"},
      {"evex512", "avx512f"}};
  auto other = others.find(name);
  if (other != others.end())
    return other->second;
  std::replace(name.begin(), name.end(), '.', '_');
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

static bool has(const std::string &name) {
  return flagsOfThisCpu().count(linuxName(name)) != 0;
}

std::vector<std::string>
cpu::missingFeatures(const std::vector<std::string> &wanted) {
  std::vector<std::string> missing;
  for (std::string name : wanted) {
    if (name.empty() || name[0] == '-')
      continue;
    if (name[0] == '+')
      name.erase(0, 1);
    if (!has(name))
      missing.push_back(name);
  }
  return missing;
}

Status cpu::checkFeatures(const std::vector<std::string> &wanted) {
  std::vector<std::string> missing = missingFeatures(wanted);
  if (missing.empty())
    return Status();
  std::vector<std::string> present;
  for (const char *name : {"sse4.2", "avx", "avx2", "fma", "f16c", "avx512f",
                           "avx512bw", "avx512vl"})
    if (has(name))
      present.push_back(name);
  bool level4 = has("avx512f") && has("avx512bw") && has("avx512cd") &&
                has("avx512dq") && has("avx512vl");
  bool level3 = has("avx2") && has("fma") && has("f16c") && has("bmi2");
  std::string cure = level4   ? "compile with --target=cpu:x86-64-v4"
                     : level3 ? "compile with --target=cpu:x86-64-v3"
                              : "compile with --target=cpu on this machine";
  return Status::error("plan needs " + join(missing, ", ") + ", this CPU has " +
                       (present.empty()
                            ? std::string("none of the features of x86-64-v3")
                            : join(present, ", ")) +
                       "; " + cure);
}
