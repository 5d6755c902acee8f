// A file's shape: what is read as what, what is refused and with which words.
#include <gmock/gmock.h>

#include "tests/clients/cli/read_files.hpp"

namespace tessera::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;

using FileShapes = ReadFiles;

struct Shape {
  std::string name;
  std::string content;
  ReadOptions options;
  std::string expected;  // The records, or a part of the refusal.
  std::string also{};    // Another part of it; of the description, where the file is read.
};

std::optional<char> none() { return std::nullopt; }

TEST_F(FileShapes, AreReadAsTheySay) {
  const std::vector<Shape> shapes = {
      {"a.csv",
       "id,text\n1,alpha\n2,beta\n",
       {},
       "\"1\"=alpha|\"2\"=beta",
       "2 columns: \"id\", \"text\"; embedding \"text\"; ids from \"id\""},
      {"a.CSV", "text\nalpha\n", {}, "~=alpha", "ids are the items' numbers"},
      {"a.Tsv", "_id\ttext\n1\talpha\n", {}, "\"1\"=alpha", "ids from \"_id\""},
      {"a.TXT", "alpha\nbeta", {}, "~=alpha|~=beta", "text, a line each"},
      {"a.JsonL", "{\"text\": \"alpha\"}\n", {}, "~=alpha", "JSON lines; embedding \"text\""},
      {"a.json", "{\"text\": \"alpha\"}\n{\"text\": \"beta\"}\n", {}, "~=alpha|~=beta", ""},
      // Delimiters, quotes and headers as the options say.
      {"s.csv", "id;text\r\n1;alpha\r\n", {.delimiter = ';'}, "\"1\"=alpha", ""},
      {"h.csv", "alpha\nbeta\n", {.no_header = true}, "~=alpha|~=beta", "1 column: \"1\""},
      {"h.csv",
       "7,alpha\n8,beta\n",
       {.field = "2", .id_field = "1", .no_header = true},
       "\"7\"=alpha|\"8\"=beta",
       ""},
      {"n.csv", "text,n\n\"a,\"b\n", {.quote_given = true, .quote = none()}, "~=\"a", ""},
      {"q.tsv",
       "id\ttext\n1\t\"Hi\" she said\n2\t5\" disk\n3\t\"open\n4\tfour\n",
       {},
       "\"1\"=\"Hi\" she said|\"2\"=5\" disk|\"3\"=\"open|\"4\"=four",
       "quotes stand for themselves"},
      {"q.tsv", "id\ttext\n1\t\"a\tb\"\n", {.quote_given = true, .quote = '"'}, "\"1\"=a\tb", ""},
      {"q.csv", "id,text\n1,'a,b'\n", {.quote_given = true, .quote = '\''}, "\"1\"=a,b", ""},
      // Line ends: LF, CRLF, CR, none at the end, blank ones.
      {"e.csv",
       "id,text\r1,alpha\r2,\"b\rc\"\r",
       {},
       "\"1\"=alpha|\"2\"=b\rc",
       "lines end with CR"},
      {"e.txt", "alpha\rbeta\rgamma", {}, "~=alpha|~=beta|~=gamma", "lines end with CR"},
      {"e.txt", "alpha\r\nbe\rta\r\n", {}, "~=alpha|~=be\rta", ""},
      {"e.txt", "alpha\r", {}, "~=alpha", ""},
      {"e.jsonl", "{\"text\":\"a\"}\r{\"text\":\"b\"}\r", {}, "~=a|~=b", "lines end with CR"},
      {"e.csv", "\n\nid,text\n\n1,alpha\n\n\n2,beta", {}, "\"1\"=alpha|\"2\"=beta", ""},
      {"b.txt", "one\n\ntwo\n", {}, "~=one|~=|~=two", ""},
      {"e.csv", "id,text\n", {}, "", "2 columns"},
      // Names: exact ones, twice the same where it does not matter, many columns.
      {"d.csv", "id,x,text,x\n1,a,alpha,b\n", {}, "\"1\"=alpha", ""},
      {"i.csv", "ID,text\n1,alpha\n", {}, "~=alpha", "if \"ID\" is the id, say --id-field ID"},
      {"i.csv", "ID,text\n1,alpha\n", {.no_ids = true}, "~=alpha", ""},
      {"i.csv", "id,text\n1,alpha\n", {.no_ids = true}, "~=alpha", "ids are the items' numbers"},
      {"i.jsonl", "{\"Id\":1,\"text\":\"a\"}\n", {}, "~=a", "if \"Id\" is the id"},
      {"f.csv", "text,ID\nalpha,1\n", {.id_field = "ID"}, "\"1\"=alpha", ""},
      {"x.csv", "text\n\"a\"\n\"\"\n", {}, "~=a|~=", ""},
      // Kinds that are insisted on.
      {"j.txt", "{\"text\": \"a\"}\n", {.format = "txt"}, "~={\"text\": \"a\"}", ""},
      {"t.txt", "a\tb\nc\td\n", {.format = "txt"}, "~=a\tb|~=c\td", ""},
      {"t.txt", "a\tb\nc d\n", {}, "~=a\tb|~=c d", ""},
      {"t.txt", "Dear id, text of mine\nother\n", {}, "~=Dear id, text of mine|~=other", ""},
      {"z.txt", "BZh is how bzip2 begins\n", {}, "~=BZh is how bzip2 begins", ""},
      {"p.txt", "PAR1 is no magic here\n", {}, "~=PAR1 is no magic here", ""},
      {"o.txt", "ORC and elf\n", {}, "~=ORC and elf", ""},
  };
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(shape.name + ": " + shape.content);
    EXPECT_EQ(shown(read(shape.name, shape.content, shape.options)), shape.expected);
    EXPECT_THAT(description_, HasSubstr(shape.also));
  }
}

TEST_F(FileShapes, WrongGuessesAreRefusedWithTheOptionThatHelps) {
  const std::vector<Shape> shapes = {
      // Delimiters.
      {"a.csv", "id;text\r\n1;alpha\r\n", {}, "1 column: \"id;text\"", "say --delimiter ';'"},
      {"a.csv", "id\ttext\n1\talpha\n", {}, "1 column: \"id\\x09text\"", "say --delimiter tab"},
      {"a.tsv", "id,text\n1,alpha\n", {}, "its delimiter seems to be \",\"", "--delimiter ,"},
      {
          "a.csv",
          "key|body|more\n1|alpha|x\n",
          {},
          "3 columns",
          "",
      },
      {"a.csv", "id;text,more\n1;alpha,b\n", {}, "2 columns", "--delimiter ';'"},
      // Headers.
      {"a.csv", "alpha\nbeta\ngamma\n", {}, "1 column: \"alpha\"", "--no-header"},
      {"a.csv", "ID,Text\n1,alpha\n", {}, "\"ID\", \"Text\"", "say --field Text --id-field ID"},
      {"a.csv", "id, text\n1, alpha\n", {}, "\"id\", \" text\"", "say --field ' text'"},
      {"a.csv",
       "1,alpha\n2,beta\n",
       {.no_header = true},
       "the first row is \"1\", \"alpha\"",
       "say --field 1 to 2"},
      {"a.csv", "text,text\na,b\n", {}, "more than one column \"text\"", "--no-header"},
      {"a.csv", "id,id,text\n1,2,b\n", {}, "more than one column \"id\"", ""},
      {"a.csv", "id,text\n1,x\n", {.id_field = "Id"}, "none is called \"Id\"", "--id-field id"},
      {"a.csv", "id,text\n1,x\n", {.id_field = "key"}, "none is called \"key\"", "--no-ids"},
      {"a.csv", "id,text\n1,a,x\n2,b,y\n", {}, "the first row has 2 columns", "3 for example"},
      // Quotes.
      {"a.csv",
       "id,text\n1,alpha\n2,\"never\n3,gamma\n4,delta\n",
       {},
       "opens in line 3",
       "lines 3 to 5"},
      {"a.csv",
       "id,text\n1,\"a\nb\"\n2,\"never\n3,gamma\n4,delta",
       {},
       "opens in line 4",
       "lines 4 to 6"},
      {"a.csv", "\"id,text\n1,a\n", {}, "1 column", ""},
      // Other kinds under these names, and names of no kind.
      {"a.json",
       "[{\"text\": \"a\"}, {\"text\": \"b\"}]",
       {},
       "it is an array of JSON",
       "jq -c '.[]'"},
      {"a.jsonl", "[\n{\"text\": \"a\"},\n{\"text\": \"b\"}]", {}, "it is an array of JSON", "jq"},
      {"a.json", "{\n  \"text\": \"a\"\n}\n", {}, "over several lines", "jq -c ."},
      {"a.jsonl", "\"alpha\"\n\"beta\"\n", {}, "strings of JSON", "jq -c '{text: .}'"},
      {"a.jsonl", "1\n2\n", {}, "values of JSON", ""},
      {"a.jsonl", "alpha\nbeta\n", {}, "no JSON (the line is not valid JSON at byte 1)", ""},
      {"a.jsonl",
       "{\"body\": \"a\", \"title\": \"b\"}\n",
       {},
       "\"body\", \"title\"",
       "say --field NAME"},
      {"a.jsonl", "{\"Text\": \"a\"}\n", {}, "none is called \"text\"", "say --field Text"},
      {"a.jsonl", "{\"text\": \"a\"}\n", {.id_field = "key"}, "none is called \"key\"", ""},
      {"a.txt",
       "{\"text\": \"a\"}\n{\"text\": \"b\"}\n",
       {},
       "looks like JSON",
       "--input-format jsonl"},
      {"a.txt", "[\n \"a\",\n \"b\"\n]\n", {}, "looks like JSON", ""},
      {"a.txt", "1\talpha\n2\tbeta\n", {}, "looks like a table", "--input-format tsv"},
      {"a.txt", "id,text\n1,alpha\n", {}, "looks like a table", "--input-format csv"},
      {"a.txt", "id;text\n1;alpha\n", {}, "looks like a table", "--input-format txt"},
      {"a.dat", "alpha\n", {}, "none of .txt, .jsonl, .csv and .tsv", "--input-format"},
      {"noname", "alpha\n", {}, "none of .txt", ""},
      // Options that would be of no use.
      {"a.txt", "alpha\n", {.delimiter = ';'}, "no use for --delimiter", ""},
      {"a.jsonl", "{\"text\":\"a\"}\n", {.quote_given = true}, "no use for --quote", ""},
      {"a.txt", "alpha\n", {.no_header = true}, "no use for --no-header", ""},
      {"a.txt", "alpha\n", {.field = "body"}, "no use for --field", "--input-format"},
      {"a.txt", "alpha\n", {.id_field = "key"}, "no use for --id-field", ""},
  };
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(shape.name + ": " + shape.content);
    const std::string said = refusal(shape.name, shape.content, shape.options);
    const bool several = shape.content.starts_with("key|");
    EXPECT_THAT(said, HasSubstr(several ? "say --delimiter '|'" : shape.expected));
    EXPECT_THAT(said, HasSubstr(shape.also));
    EXPECT_THAT(said, HasSubstr(shape.name));
  }
}

TEST_F(FileShapes, BinaryFilesAreNamed) {
  using std::string_literals::operator""s;
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {"\x1F\x8B\x08\0\0\0"s, "compressed by gzip; unpack it first: zcat"},
      {"\x28\xB5\x2F\xFD\x24"s, "compressed by zstd; unpack it first: zstdcat"},
      {"BZh91AY&SY\x01\x02"s, "compressed by bzip2"},
      {"\xFD"s + "7zXZ\0\0"s, "compressed by xz"},
      {"\x04\x22\x4D\x18\x60"s, "compressed by lz4"},
      {"PAR1\x15\x04\0\0"s, "a Parquet file"},
      {"ARROW1\0\0"s, "an Arrow file"},
      {"Obj\x01\x04"s + std::string(9, '\0'), "an Avro file"},
      {"PK\x03\x04\x14\0"s, "a zip archive"},
      {"SQLite format 3\0\x10"s, "an SQLite database"},
      {"\x93NUMPY\x01\0"s, "a NumPy file"},
      {"\x89HDF\r\n\x1A\n"s, "an HDF5 file"},
      {"%PDF-1.7\n"s, "a PDF"},
      {std::string(257, 'x') + "ustar\0"s + std::string(200, '\0'), "a tar archive"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"s, "git lfs pull"},
  };
  for (const auto& [content, words] : kinds) {
    for (const char* name : {"a.txt", "a.csv", "a.jsonl", "a.parquet", "a.gz"}) {
      EXPECT_THAT(refusal(name, content), HasSubstr(words)) << name;
      EXPECT_THAT(refusal(name, content, {.encoding = "utf-8"}), HasSubstr(words)) << name;
    }
  }
}

TEST_F(FileShapes, FoldersAndMissingFilesAreToldBeforeTheFirstRecord) {
  const std::string good = write("good.txt", "alpha\n");
  const auto error = [&](const std::vector<std::string>& paths) -> std::string {
    try {
      open_readers(paths, {}, no_stop_);
    } catch (const FatalError& fault) {
      return fault.what();
    }
    return "";
  };
  EXPECT_THAT(error({good, folder_ + "/none.txt"}), HasSubstr("none.txt: No such file"));
  EXPECT_THAT(error({good, folder_}), HasSubstr("it is a folder"));
  EXPECT_THAT(error({good, write("bad.csv", "a;b\n1;2\n")}), HasSubstr("bad.csv has 1 column"));
  EXPECT_THAT(error({"-", "-"}), HasSubstr("can be read once"));
}

TEST_F(FileShapes, ManyFilesOfOneShapeAreDescribedOnce) {
  std::vector<std::string> paths;
  for (int i = 0; i < 4; ++i) {
    paths.push_back(write(std::to_string(i) + ".csv", "id,text\n1,x\n"));
  }
  paths.push_back(write("b.txt", "line\n"));
  const auto reader = open_readers(paths, {}, no_stop_);
  EXPECT_EQ(reader->description(),
            paths[0] +
                " and 3 more: 2 columns: \"id\", \"text\"; embedding \"text\"; ids from "
                "\"id\"\n" +
                paths[4] + ": text, a line each");
}

}  // namespace
}  // namespace tessera::cli
