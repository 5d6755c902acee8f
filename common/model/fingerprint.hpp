#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/identity/digest.hpp"
#include "common/model/identity/remembered_hashes.hpp"
#include "common/model/model_folder.hpp"
#include "common/model/weights/safetensors.hpp"

namespace tessera {

// BLAKE2b-256 of DIR/tokenizer.json in hexadecimal, or an Error when there is none.
Result<std::string> tokenizer_hash(const std::filesystem::path& model_dir);

struct FingerprintOptions {
  int threads = 0;      // 0: all cores
  bool rehash = false;  // Read all bytes, whatever is remembered.
  // For what is remembered of folders that cannot be written; empty: nowhere.
  std::filesystem::path cache_folder = user_cache_folder();
  std::stop_token stop;              // Ends it early, with kCancelled.
  std::int64_t (*clock)() = now_ns;  // Tests have their own.
};

// All that tells the vectors of a model folder from those of another. Equal on every machine for
// equal files.
class ModelHash {
 public:
  // Reads every byte of the weights at the speed of the disk and of BLAKE2b on all threads, unless
  // the hashes of files of the same size, inode and times are remembered (remembered_hashes.hpp),
  // and remembers them. Errors: a file that cannot be read, kConflict for one that was changed
  // since `weights` was opened.
  static Result<ModelHash> of(const ModelFolder& folder, const SafetensorsFolder& weights,
                              const FingerprintOptions& options = {});

  // For a type that is computed in ("bfloat16", "float32"), 64 hexadecimal digits: BLAKE2b-256 over
  // a tag, the type, the bytes of config.json, canonical_settings(), the tokenizer's hash, and of
  // each safetensors file, the encoder's first, its name and the hash of its bytes (file_hash.hpp).
  std::string fingerprint(std::string_view numeric_type) const;
  // What versions before called the same folder: they hashed 16 pages of each tensor. Jobs and
  // coordinators of theirs are known by it. Empty for other types than the two, and where they gave
  // the folder other vectors.
  std::string former_fingerprint(std::string_view numeric_type) const;
  const std::string& tokenizer() const { return tokenizer_; }

  struct Work {
    std::uint64_t bytes = 0;  // of the weights
    std::uint64_t bytes_read = 0;
    double seconds = 0;                   // of all that `of` did
    std::filesystem::path remembered_in;  // empty: nowhere, or nothing had to be written
    std::vector<std::string> wrong;  // files whose remembered hash --rehash found to be another
  };
  const Work& work() const { return work_; }

 private:
  struct File {
    std::string name;  // within the folder
    StampedFile file;
    Digest hash{};
  };
  Result<void> list_files(const ModelFolder& folder, const SafetensorsFolder& weights);
  // Both take from `known` what still holds, and put into `next` what the next start may use.
  Result<void> hash_files(const FingerprintOptions& options, const RememberedHashes& known,
                          RememberedHashes& next);
  bool add_former(const SafetensorsFolder& weights, const FingerprintOptions& options,
                  const RememberedHashes& known, RememberedHashes& next);

  std::string config_;
  std::string settings_;
  std::string tokenizer_;
  std::vector<File> files_;
  std::map<std::string, std::string, std::less<>> former_;  // by numeric type
  Work work_;
};

}  // namespace tessera
