# cmake -D COMPILER=... -D INCLUDE=... -D SOURCE=... -P CheckCompileFail.cmake
# Passes when SOURCE does not compile and the compiler says what the first line of SOURCE expects, `// expect: REGEX`,
# and when it does compile with EBB_COMPILES defined: so the marked lines, and nothing else, are at fault.
cmake_minimum_required(VERSION 3.24)

file(STRINGS ${SOURCE} first_line LIMIT_COUNT 1)
if(NOT first_line MATCHES "^// expect: (.+)$")
  message(FATAL_ERROR "${SOURCE}: the first line must be `// expect: REGEX`")
endif()
set(expected "${CMAKE_MATCH_1}")
set(compile ${COMPILER} -std=c++20 -fsyntax-only -I${INCLUDE})

execute_process(COMMAND ${CMAKE_COMMAND} -E env LC_ALL=C ${compile} -DEBB_COMPILES ${SOURCE}
                RESULT_VARIABLE status ERROR_VARIABLE diagnostics)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "does not compile with EBB_COMPILES either:\n${diagnostics}")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -E env LC_ALL=C ${compile} ${SOURCE}
                RESULT_VARIABLE status ERROR_VARIABLE diagnostics)
if(status EQUAL 0)
  message(FATAL_ERROR "compiles, but must not")
elseif(NOT diagnostics MATCHES "${expected}")
  message(FATAL_ERROR "fails without saying '${expected}':\n${diagnostics}")
endif()
