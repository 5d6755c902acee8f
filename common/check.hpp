#pragma once

#include <concepts>
#include <cstdint>
#include <ostream>
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

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

template <typename T>
void print_value(std::ostream& out, const T& value) {
  if constexpr (std::is_enum_v<T>) {
    out << static_cast<std::int64_t>(value);
  } else if constexpr (requires { out << value; }) {
    out << value;
  } else {
    out << "(a value without a text)";
  }
}

template <typename T>
concept Number = std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char> &&
                 !std::same_as<T, wchar_t> && !std::same_as<T, char8_t> &&
                 !std::same_as<T, char16_t> && !std::same_as<T, char32_t>;

// A comparison that was made, with its two sides, which outlive it: they are of one expression.
template <typename L, typename R>
struct Comparison {
  const L& left;
  const R& right;
  bool holds;

  explicit operator bool() const { return holds; }
  std::string values() const {
    std::ostringstream text;
    print_value(text, left);
    text << " and ";
    print_value(text, right);
    return std::move(text).str();
  }
};

// The left side of CHECK's condition: `LeftSide<T>{a} == b` is a Comparison. Whole numbers are
// compared by their values, whatever their signs.
template <typename L>
struct LeftSide {
  const L& left;

#define TESSERA_COMPARISON(symbol, function)                         \
  template <typename R>                                              \
  constexpr Comparison<L, R> operator symbol(const R& right) const { \
    if constexpr (Number<L> && Number<R>) {                          \
      return {left, right, function(left, right)};                   \
    } else {                                                         \
      return {left, right, static_cast<bool>(left symbol right)};    \
    }                                                                \
  }
  TESSERA_COMPARISON(==, std::cmp_equal)
  TESSERA_COMPARISON(!=, std::cmp_not_equal)
  TESSERA_COMPARISON(<, std::cmp_less)
  TESSERA_COMPARISON(<=, std::cmp_less_equal)
  TESSERA_COMPARISON(>, std::cmp_greater)
  TESSERA_COMPARISON(>=, std::cmp_greater_equal)
#undef TESSERA_COMPARISON

  constexpr explicit operator bool() const { return static_cast<bool>(left); }
};

// Takes the first operand of the condition: << binds more strongly than every comparison.
struct Condition {
  template <typename L>
  constexpr LeftSide<L> operator<<(const L& left) const {
    return {left};
  }
};

template <typename L, typename R>
std::string values_of(const Comparison<L, R>& comparison) {
  return comparison.values();
}
template <typename T>
std::string values_of(const T&) {
  return {};
}

// Within one expression with the condition, so that what it refers to is still there.
template <typename C>
constexpr void verify(const C& condition, const char* expression,
                      const std::source_location& where) {
  if (!static_cast<bool>(condition)) [[unlikely]] {
    check_failed(expression, values_of(condition), where);
  }
}

}  // namespace detail
}  // namespace tessera

// CHECK(condition): a broken invariant, that is a bug of ours, aborts, in release builds too; of a
// comparison both sides are printed. Input from outside is validated into a Result instead. The
// only macro of the project.
#ifdef __CUDACC__
#define CHECK(condition)                                                                \
  do {                                                                                  \
    if (!(condition)) [[unlikely]]                                                      \
      ::tessera::detail::check_failed(#condition, {}, std::source_location::current()); \
  } while (false)
#else
#define CHECK(...)                                                                    \
  do {                                                                                \
    _Pragma("GCC diagnostic push")                                                    \
        _Pragma("GCC diagnostic ignored \"-Wparentheses\"")::tessera::detail::verify( \
            (::tessera::detail::Condition{} << __VA_ARGS__), #__VA_ARGS__,            \
            std::source_location::current());                                         \
    _Pragma("GCC diagnostic pop")                                                     \
  } while (false)
#endif
