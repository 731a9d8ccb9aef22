//===- Text.h - Numbers and names for people --------------------*- C++ -*-===//
#ifndef DSHARD_SUPPORT_TEXT_H
#define DSHARD_SUPPORT_TEXT_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dshard {

/// "0 B", "1023 B", "1.50 KiB", "12.0 MiB", "345 GiB": three digits.
std::string formatBytes(uint64_t bytes);
/// "1,234,567".
std::string formatCount(uint64_t value);
/// The shortest text that reads back as the same double; "nan", "inf", "-inf".
std::string formatDouble(double value);

std::string join(const std::vector<std::string> &parts,
                 std::string_view separator);
/// "a,b,,c" -> {"a", "b", "", "c"}; "" -> {}.
std::vector<std::string> split(std::string_view text, char separator);

/// A whole number in [low, high], nothing around it. False otherwise.
bool parseInteger(std::string_view text, int64_t &value,
                  int64_t low = INT64_MIN, int64_t high = INT64_MAX);
/// A floating-point number, nothing around it. False otherwise.
bool parseDouble(std::string_view text, double &value);

/// Insertions, deletions, replacements and swaps of neighbours that turn one
/// name into the other.
unsigned editDistance(std::string_view left, std::string_view right);
/// Up to `limit` candidates that are near enough to be meant, nearest first: an
/// edit distance of at most a third of the length (at least 1), or one contains
/// the other.
std::vector<std::string>
nearestNames(std::string_view name, const std::vector<std::string> &candidates,
             size_t limit = 3);
/// " (did you mean tp?)", or "" when nothing is near.
std::string didYouMean(std::string_view name,
                       const std::vector<std::string> &candidates);

} // namespace dshard

#endif // DSHARD_SUPPORT_TEXT_H
