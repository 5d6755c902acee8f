#pragma once

#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>

namespace tessera {

// The process cannot do its work: a bad configuration, a missing weight, a GPU that failed.
// Thrown from anywhere, caught only in main(), which prints the one line and exits non-zero.
class FatalError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {
[[noreturn]] void check_failed(const char* expression, const std::string& values,
                               const std::source_location& where);
}  // namespace detail

// A comparison that must hold; on failure both values are printed and the process aborts.
template <typename A, typename B, typename Compare>
void check_compare(const A& a, const B& b, Compare compare, const char* expression,
                   const std::source_location& where) {
  if (compare(a, b)) [[likely]] {
    return;
  }
  std::ostringstream values;
  values << a << " against " << b;
  detail::check_failed(expression, values.str(), where);
}

}  // namespace tessera

// CHECK(condition): a broken invariant, that is a bug of ours, aborts, in release builds too.
// Input from outside is validated into a Result instead. The only macro of the project.
#define CHECK(condition)                                                                \
  do {                                                                                  \
    if (!(condition)) [[unlikely]]                                                      \
      ::tessera::detail::check_failed(#condition, {}, std::source_location::current()); \
  } while (false)
