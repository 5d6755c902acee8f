#include "common/os/data_dir.hpp"

#include "common/check.hpp"

namespace tessera {

std::filesystem::path data_dir() {
  namespace fs = std::filesystem;
  const fs::path executable = fs::read_symlink("/proc/self/exe");
  const fs::path installed = executable.parent_path().parent_path() / "share" / "tessera";
  if (fs::is_directory(installed / "demo-model")) {
    return installed;
  }
  for (fs::path folder = executable.parent_path();; folder = folder.parent_path()) {
    if (fs::is_directory(folder / "deploy" / "data" / "demo-model")) {
      return folder / "deploy" / "data";
    }
    if (folder == folder.parent_path()) {
      throw FatalError("the shipped data is neither at " + installed.string() +
                       " nor at deploy/data above " + executable.string());
    }
  }
}

}  // namespace tessera
