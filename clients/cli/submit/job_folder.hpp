#pragma once

#include <string>

#include "clients/cli/submit/manifest.hpp"
#include "common/os/lock_file.hpp"

namespace tessera::cli {

// The right to write into a job's folder. One that holds a job is locked against another run at the
// same time, and refused (FatalError) when its settings are not the very same. A new one is not
// made before claim(), so that a run which is refused for its input or by the coordinator leaves
// nothing behind.
class JobFolder {
 public:
  JobFolder(std::string path, std::string settings);
  // Makes what is missing of the folder, its lock and its manifest. Does nothing when all is there.
  void claim();
  bool claimed() const { return claimed_; }
  const std::string& path() const { return path_; }
  Manifest& manifest() { return manifest_; }

 private:
  void lock();
  bool take_up();  // False when there is no job to take up.

  std::string path_;
  std::string settings_;
  LockFile lock_;  // Held while the object lives.
  bool claimed_ = false;
  Manifest manifest_;
};

}  // namespace tessera::cli
