//===- TestFolder.h - A temporary folder of a test --------------*- C++ -*-===//
#ifndef DSHARD_TEST_RUNTIME_TESTFOLDER_H
#define DSHARD_TEST_RUNTIME_TESTFOLDER_H

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace dshard::test {

class TestFolder {
public:
  TestFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "dshard-XXXXXX").string();
    folder = mkdtemp(pattern.data()) ? pattern : std::string();
  }
  ~TestFolder() {
    if (!folder.empty())
      std::filesystem::remove_all(folder);
  }
  std::string path(const std::string &name = "") const {
    return name.empty() ? folder : folder + "/" + name;
  }
  void write(const std::string &name, const std::string &bytes) const {
    std::filesystem::create_directories(
        std::filesystem::path(path(name)).parent_path());
    std::ofstream(path(name), std::ios::binary) << bytes;
  }

private:
  std::string folder;
};

} // namespace dshard::test

#endif // DSHARD_TEST_RUNTIME_TESTFOLDER_H
