//===- TextMutator.cpp - Mutate MLIR by its words -------------------------===//

#include "TextMutator.h"
#include "Fuzzer.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <vector>

namespace dshard::fuzz {
namespace {

/// A word of the text: [begin, end). Its kind is its first character, with all
/// digits as one kind, all letters as another.
struct Word {
  size_t begin, end;
  char kind;
};

std::vector<Word> wordsOf(const std::string &text) {
  std::vector<Word> words;
  auto inside = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' ||
           c == '.' || c == '$';
  };
  for (size_t at = 0; at < text.size();) {
    size_t begin = at;
    char first = text[at++];
    if (std::isspace(static_cast<unsigned char>(first)))
      continue;
    char kind = first;
    if (first == '"') {
      while (at < text.size() && text[at] != '"' && text[at] != '\n')
        ++at;
      at = std::min(at + 1, text.size());
    } else if (std::isdigit(static_cast<unsigned char>(first))) {
      while (at < text.size() &&
             std::isdigit(static_cast<unsigned char>(text[at])))
        ++at;
      kind = '0';
    } else if (inside(first) || first == '%' || first == '#' || first == '@' ||
               first == '!') {
      while (at < text.size() && inside(text[at]))
        ++at;
      kind = inside(first) ? 'a' : first;
    }
    words.push_back({begin, at, kind});
  }
  return words;
}

std::string newNumber(Random &random, const std::string &old) {
  int64_t value = std::atoll(old.c_str());
  switch (below(random, 4)) {
  case 0:
    return std::to_string(interestingNumber(random));
  case 1:
    return std::to_string(static_cast<uint64_t>(value) + 1);
  case 2:
    return std::to_string(value / 2);
  default:
    return std::to_string(below(random, 10));
  }
}

void mutateWord(std::string &text, Random &random) {
  std::vector<Word> words = wordsOf(text);
  if (words.empty())
    return;
  const Word &word = words[below(random, words.size())];
  std::string old = text.substr(word.begin, word.end - word.begin);
  if (word.kind == '0' && below(random, 2)) {
    text.replace(word.begin, old.size(), newNumber(random, old));
    return;
  }
  if (below(random, 12) == 0) {
    text.erase(word.begin, old.size());
    return;
  }
  std::vector<Word> alike;
  std::copy_if(words.begin(), words.end(), std::back_inserter(alike),
               [&](const Word &w) { return w.kind == word.kind; });
  const Word &other = alike[below(random, alike.size())];
  text.replace(word.begin, old.size(),
               text.substr(other.begin, other.end - other.begin));
}

void mutateLine(std::string &text, Random &random) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    lines.push_back(text.substr(at, end - at));
    at = end;
  }
  if (lines.size() < 3)
    return;
  size_t at = below(random, lines.size()), to = below(random, lines.size());
  switch (below(random, 3)) {
  case 0:
    lines.erase(lines.begin() + static_cast<ptrdiff_t>(at));
    break;
  case 1:
    std::swap(lines[at], lines[to]);
    break;
  case 2: {
    std::string copy = lines[at];
    lines.insert(lines.begin() + static_cast<ptrdiff_t>(to), copy);
    break;
  }
  }
  text.clear();
  for (const std::string &line : lines)
    text += line;
}

} // namespace

size_t mutateText(uint8_t *data, size_t size, size_t maxSize, unsigned seed) {
  Random random(seed);
  std::string text(reinterpret_cast<char *>(data), size);
  if (below(random, 20) == 0 || text.empty())
    return LLVMFuzzerMutate(data, size, maxSize);
  for (size_t i = below(random, 3) + 1; i-- > 0 && !text.empty();)
    (below(random, 5) ? mutateWord : mutateLine)(text, random);
  if (text.empty() || text.size() > maxSize)
    return LLVMFuzzerMutate(data, size, maxSize);
  std::memcpy(data, text.data(), text.size());
  return text.size();
}

} // namespace dshard::fuzz
