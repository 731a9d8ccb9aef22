#include "dshard/Support/Text.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace dshard {

std::string formatBytes(uint64_t bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024)
    return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes);
  int unit = 0;
  // 1023.6 would print as 1024.
  while (value >= 1023.5 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  char text[64];
  int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  std::snprintf(text, sizeof(text), "%.*f %s", decimals, value, units[unit]);
  return text;
}

std::string formatCount(uint64_t value) {
  std::string digits = std::to_string(value);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(at, ",");
  return digits;
}

std::string formatDouble(double value) {
  if (std::isnan(value))
    return "nan";
  if (std::isinf(value))
    return value < 0 ? "-inf" : "inf";
  char text[64];
  auto result = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, result.ptr);
}

std::string join(const std::vector<std::string> &parts,
                 std::string_view separator) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i)
      text += separator;
    text += parts[i];
  }
  return text;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  if (text.empty())
    return parts;
  size_t begin = 0;
  for (size_t at; (at = text.find(separator, begin)) != text.npos;
       begin = at + 1)
    parts.emplace_back(text.substr(begin, at - begin));
  parts.emplace_back(text.substr(begin));
  return parts;
}

bool parseInteger(std::string_view text, int64_t &value, int64_t low,
                  int64_t high) {
  int64_t parsed = 0;
  const char *end = text.data() + text.size();
  auto result = std::from_chars(text.data(), end, parsed);
  if (text.empty() || result.ec != std::errc() || result.ptr != end ||
      parsed < low || parsed > high)
    return false;
  value = parsed;
  return true;
}

bool parseDouble(std::string_view text, double &value) {
  std::string copy(text);
  if (copy.empty() || std::isspace(static_cast<unsigned char>(copy[0])))
    return false;
  char *end = nullptr;
  double parsed = std::strtod(copy.c_str(), &end);
  if (*end)
    return false;
  value = parsed;
  return true;
}

unsigned editDistance(std::string_view left, std::string_view right) {
  std::vector<unsigned> before, previous, current(right.size() + 1);
  for (size_t j = 0; j <= right.size(); ++j)
    current[j] = static_cast<unsigned>(j);
  for (size_t i = 1; i <= left.size(); ++i) {
    before = std::move(previous);
    previous = current;
    current[0] = static_cast<unsigned>(i);
    for (size_t j = 1; j <= right.size(); ++j) {
      unsigned replace = previous[j - 1] + (left[i - 1] != right[j - 1]);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, replace});
      if (i > 1 && j > 1 && left[i - 1] == right[j - 2] &&
          left[i - 2] == right[j - 1])
        current[j] = std::min(current[j], before[j - 2] + 1);
    }
  }
  return current[right.size()];
}

std::vector<std::string>
nearestNames(std::string_view name, const std::vector<std::string> &candidates,
             size_t limit) {
  std::vector<std::pair<unsigned, std::string>> near;
  for (const std::string &candidate : candidates) {
    unsigned distance = editDistance(name, candidate);
    size_t longest = std::max(name.size(), candidate.size());
    size_t shortest = std::min(name.size(), candidate.size());
    bool contained =
        shortest >= 3 && (candidate.find(name) != std::string::npos ||
                          name.find(candidate) != name.npos);
    if (contained || distance <= std::max<size_t>(1, longest / 3))
      near.emplace_back(distance, candidate);
  }
  std::sort(near.begin(), near.end());
  std::vector<std::string> result;
  for (auto &[distance, candidate] : near)
    if (result.size() < limit &&
        std::find(result.begin(), result.end(), candidate) == result.end())
      result.push_back(std::move(candidate));
  return result;
}

std::string didYouMean(std::string_view name,
                       const std::vector<std::string> &candidates) {
  std::vector<std::string> near = nearestNames(name, candidates);
  return near.empty() ? "" : " (did you mean " + join(near, ", ") + "?)";
}

} // namespace dshard
