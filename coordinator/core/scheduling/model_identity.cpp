#include "coordinator/core/scheduling/model_identity.hpp"

namespace tessera::coordinator {

void ModelIdentity::pin(const std::string& fingerprint) {
  if (in_use_.empty()) {
    in_use_ = fingerprint;
  }
}

std::optional<std::string> ModelIdentity::refusal(const protocol::WorkerHello& hello) const {
  const std::string& own = own_fingerprint(hello);
  if (in_use_.empty() || own == in_use_) {
    return std::nullopt;
  }
  if (is_former_worker(hello)) {
    if (own == former_) {
      return "the worker's version knows a fingerprint over samples of the weights only, and "
             "model " +
             hello.model + " is served by the one over all of them: start a worker of this version";
    }
  } else if (hello.former_fingerprint == in_use_ && (exact_.empty() || exact_ == own)) {
    return std::nullopt;
  }
  return "the worker's fingerprint differs from the one that model " + hello.model +
         " is served with";
}

void ModelIdentity::adopt(const protocol::WorkerHello& hello) {
  pin(own_fingerprint(hello));
  if (!is_former_worker(hello)) {
    exact_ = hello.fingerprint;
    former_ = hello.former_fingerprint;
  }
}

void ModelIdentity::leave_former() {
  if (!exact_.empty()) {
    in_use_ = exact_;
  }
}

bool ModelIdentity::continues(std::string_view fingerprint) const {
  return fingerprint.empty() || fingerprint == in_use_ ||
         (in_use_ == exact_ && fingerprint == former_);
}

}  // namespace tessera::coordinator
