#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "common/check.hpp"

namespace tessera {

// Why a request or one item of it could not be served. The numbers are part of the wire format:
// append only. `to_string` gives the stable upper-case name that users see.
enum class ErrorCode : std::uint8_t {
  kOk = 0,
  kInvalidArgument = 1,     // The request is malformed or a value is out of range.
  kUnsupportedVersion = 2,  // The peer speaks another major version of the protocol.
  kNotFound = 3,            // Unknown model, job or route.
  kConflict = 4,            // The same job key with another specification.
  kInvalidUtf8 = 5,         // The text is not valid UTF-8.
  kEmptyText = 6,           // The text is empty or only white space.
  kTooLong = 7,             // More tokens than the model takes and truncation was not asked for.
  kInvalidTokenId = 8,      // A token id at or above the vocabulary size, or negative.
  kResourceExhausted = 9,   // A queue is full; retry after the stated time.
  kUnavailable = 10,        // No worker or no ledger can serve this now.
  kDeadlineExceeded = 11,   // The request's deadline passed before it was served.
  kCancelled = 12,          // The job was cancelled.
  kNotFinite = 13,          // The model gave NaN or Inf for this item.
  kPoison = 14,  // The item was in flight at three worker deaths or twelve lost connections.
  kUnauthenticated = 15,  // The peer's key is not known.
  kInternal = 16,         // A defect of ours; the message says what.
};

std::string_view to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // One sentence for a person.
};

// A value or an Error: how a request that cannot be served is told. Never used for bugs (CHECK) or
// for a process that cannot work (FatalError). Result<void> carries only success or the Error.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT: implicit by design
  Result(Error error) : state_(std::move(error)) {}  // NOLINT: implicit by design
  bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }

  T& value() & { return *get(); }
  const T& value() const& { return *const_cast<Result*>(this)->get(); }
  T&& value() && { return std::move(*get()); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return get(); }
  const T* operator->() const { return const_cast<Result*>(this)->get(); }

  const Error& error() const {
    CHECK(!ok());
    return std::get<Error>(state_);
  }

 private:
  T* get() {
    T* value = std::get_if<T>(&state_);
    if (value == nullptr) {
      detail::check_failed("Result holds a value", std::get<Error>(state_).message,
                           std::source_location::current());
    }
    return value;
  }

  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}  // NOLINT: implicit by design
  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  const Error& error() const {
    CHECK(!ok_);
    return error_;
  }

 private:
  Error error_;
  bool ok_ = true;
};

// The value; FatalError with the error's sentence behind `where` ("--model NAME: ") when there is
// none: for processes that cannot work without it.
template <typename T>
T value_or_fatal(Result<T> result, std::string_view where = {}) {
  if (!result) {
    throw FatalError(std::string(where) + result.error().message);
  }
  return std::move(result).value();
}

inline void ok_or_fatal(const Result<void>& result, std::string_view where = {}) {
  if (!result) {
    throw FatalError(std::string(where) + result.error().message);
  }
}

}  // namespace tessera
