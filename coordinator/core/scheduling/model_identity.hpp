#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/wire/protocol.hpp"

namespace tessera::coordinator {

// What a model's vectors are told apart by: a fingerprint over all bytes of the folder. Workers,
// ledgers and clients of former versions know the folder by another one, over samples of the
// weights. A worker of now says both. The former one is in use only as long as workers of former
// versions are there, or a job of theirs waits for its first worker; cached vectors of the one are
// none of the other. Pure; one a model, owned by the dispatcher.
class ModelIdentity {
 public:
  // Of the vectors that are computed now; empty until a worker or a job has said it.
  const std::string& fingerprint() const { return in_use_; }
  // What former versions call it; `fingerprint()` where that is not known.
  const std::string& former() const { return former_.empty() ? in_use_ : former_; }

  // An unfinished job's, of either kind; the first one holds.
  void pin(const std::string& fingerprint);
  // Why the worker must not serve the model, one sentence; nothing when it may.
  std::optional<std::string> refusal(const protocol::WorkerHello& hello) const;
  // Requires that nothing was said against the worker.
  void adopt(const protocol::WorkerHello& hello);
  // Called whenever no worker of a former version serves the model.
  void leave_former();
  // Whether a job whose vectors have this fingerprint may go on with those computed now.
  bool continues(std::string_view fingerprint) const;

 private:
  std::string in_use_;
  std::string exact_;   // of the workers of now that were let in
  std::string former_;  // theirs, too
};

// Workers of former versions say no other.
inline bool is_former_worker(const protocol::WorkerHello& hello) {
  return hello.fingerprint.empty();
}
inline const std::string& own_fingerprint(const protocol::WorkerHello& hello) {
  return is_former_worker(hello) ? hello.former_fingerprint : hello.fingerprint;
}

}  // namespace tessera::coordinator
