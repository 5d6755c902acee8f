#include "clients/cli/io/csv_header.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>

#include "clients/cli/io/file_kind.hpp"
#include "common/check.hpp"

namespace tessera::cli {
namespace {

constexpr std::size_t kNamesShownMax = 20;
constexpr int kRowsJudged = 50;

std::string plain(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (std::isspace(static_cast<unsigned char>(c)) == 0) {
      out.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    }
  }
  return out;
}

std::string columns(std::size_t count) {
  return fmt::format("{} column{}", count, count == 1 ? "" : "s");
}

// Another delimiter that the header speaks for: a name of its own then becomes the wanted one, or
// what was one name becomes several.
char better_delimiter(const std::vector<std::string>& header, const CsvDialect& dialect,
                      std::string_view wanted) {
  char best = '\0';
  std::size_t most = 1;
  for (const char other : {';', '\t', '|', ','}) {
    if (other == dialect.delimiter) {
      continue;
    }
    for (const std::string& name : header) {
      std::size_t parts = 1;
      std::size_t start = 0;
      for (std::size_t end = 0; end != std::string::npos; start = end + 1) {
        end = name.find(other, start);
        if (end != std::string::npos) {
          ++parts;
        }
        if (parts > 1 && plain(name.substr(start, end - start)) == plain(wanted)) {
          return other;
        }
      }
      if (header.size() == 1 && parts > most) {
        most = parts;
        best = other;
      }
    }
  }
  return best;
}

std::string help_for(const std::vector<std::string>& header, const CsvDialect& dialect,
                     const ReadOptions& options) {
  if (const char other = better_delimiter(header, dialect, options.field); other != '\0') {
    return fmt::format("its delimiter seems to be {}: say --delimiter {}",
                       other == '\t' ? "a tab" : shown({&other, 1}),
                       other == '\t' ? "tab" : shell_word({&other, 1}));
  }
  if (const std::string similar = similar_name(header, options.field); !similar.empty()) {
    const std::string id = options.id_field.empty() ? similar_id(header, options) : "";
    return "say --field " + shell_word(similar) +
           (id.empty() ? "" : " --id-field " + shell_word(id));
  }
  const std::string example = header.size() == 1 ? shell_word(header[0]) : "NAME";
  return fmt::format("say --field {}, or --no-header if the first row is none", example);
}

std::size_t only_column(const std::string& path, const std::vector<std::string>& names,
                        const std::string& name, const char* option) {
  if (std::ranges::count(names, name) > 1) {
    throw FatalError(
        fmt::format("{} has more than one column {}: rename one, or say --no-header "
                    "and its number with {}",
                    path, shown(name), option));
  }
  return static_cast<std::size_t>(std::ranges::find(names, name) - names.begin());
}

std::optional<std::size_t> id_column(const std::string& path, const std::vector<std::string>& names,
                                     const ReadOptions& options) {
  if (!options.id_field.empty()) {
    const std::size_t at = only_column(path, names, options.id_field, "--id-field");
    if (at == names.size()) {
      const std::string similar = similar_name(names, options.id_field);
      throw FatalError(fmt::format("{} has {}: {}; none is called {}{}", path,
                                   columns(names.size()), list_names(names),
                                   shown(options.id_field),
                                   similar.empty() ? "; say --id-field NAME, or --no-ids"
                                                   : ": say --id-field " + shell_word(similar)));
    }
    return at;
  }
  if (options.no_ids || options.no_header || names.size() == 1) {
    return std::nullopt;
  }
  for (const char* name : kIdNames) {
    if (const std::size_t at = only_column(path, names, name, "--id-field"); at < names.size()) {
      return at;
    }
  }
  return std::nullopt;
}

}  // namespace

std::string similar_name(const std::vector<std::string>& names, std::string_view wanted) {
  const auto found =
      std::ranges::find_if(names, [&](const auto& name) { return plain(name) == plain(wanted); });
  return found == names.end() ? "" : *found;
}

std::string similar_id(const std::vector<std::string>& names, const ReadOptions& options) {
  const bool exact = std::ranges::any_of(
      kIdNames, [&](const char* name) { return std::ranges::count(names, name) > 0; });
  for (const char* name : kIdNames) {
    const std::string similar = similar_name(names, name);
    if (!exact && !options.no_ids && !similar.empty() && similar != options.field) {
      return similar;
    }
  }
  return {};
}

std::string list_names(const std::vector<std::string>& names) {
  std::string list;
  for (std::size_t i = 0; i < std::min(names.size(), kNamesShownMax); ++i) {
    list += (i == 0 ? "" : ", ") + shown(names[i]);
  }
  return names.size() > kNamesShownMax
             ? fmt::format("{} and {} more", list, names.size() - kNamesShownMax)
             : list;
}

CsvColumns choose_columns(const std::string& path, const std::vector<std::string>& header,
                          const CsvDialect& dialect, const ReadOptions& options) {
  CsvColumns chosen{.names = header};
  std::string field = options.field;
  if (options.no_header) {
    for (std::size_t i = 0; i < header.size(); ++i) {
      chosen.names[i] = std::to_string(i + 1);
    }
    if (header.size() == 1 && field == kDefaultField) {
      field = "1";
    }
  }
  chosen.text = only_column(path, chosen.names, field, "--field");
  if (chosen.text == chosen.names.size()) {
    throw FatalError(options.no_header
                         ? fmt::format("{} has {}, the first row is {}: say --field 1 to {}", path,
                                       columns(header.size()), list_names(header), header.size())
                         : fmt::format("{} has {}: {}; none is called {}: {}", path,
                                       columns(header.size()), list_names(header), shown(field),
                                       help_for(header, dialect, options)));
  }
  chosen.id = id_column(path, chosen.names, options);
  return chosen;
}

void judge_rows(const std::string& path, std::string_view sample, bool whole,
                const CsvDialect& dialect, const ReadOptions& options) {
  const std::atomic<bool> kNoStop{false};
  ByteSource source(sample, kNoStop);
  CsvRows rows(source, dialect);
  if (rows.next() != CsvRows::Row::kRow) {
    return;
  }
  const std::vector<std::string> header = rows.fields();
  int judged = 0;
  std::size_t other_width = 0;
  CsvRows::Row row{};
  // The sample's last row may be cut.
  while ((row = rows.next()) != CsvRows::Row::kEnd && (whole || source.peek() != source.kEnd)) {
    if (row == CsvRows::Row::kOpenQuote && !options.quote_given) {
      throw FatalError(fmt::format(
          "{}: a quote opens in line {} and is never closed, so that lines {} to {} would be one "
          "broken row; mend it, or say --quote none if quotes stand for themselves",
          path, rows.quote_line(), rows.line(), rows.last_line()));
    }
    if (row == CsvRows::Row::kRow && judged < kRowsJudged) {
      ++judged;
      if (rows.fields().size() == header.size()) {
        other_width = 0;
        judged = kRowsJudged;  // One that fits is enough.
      } else {
        other_width = rows.fields().size();
      }
    }
  }
  if (other_width != 0) {
    throw FatalError(
        fmt::format("{}: the first row has {} ({}), the rows behind it have others, {} "
                    "for example; say --delimiter or --quote",
                    path, columns(header.size()), list_names(header), other_width));
  }
}

}  // namespace tessera::cli
