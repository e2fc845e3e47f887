//! Tokens into a tree, by CEL's grammar.

use super::{
    BadExpression,
    ast::{Element, Entry, Kind, Macro, MacroKind, Node},
    lex::{Token, TokenKind, lex},
    limits,
    value::{Key, Value},
};

/// Words that the language keeps for itself. They may still name fields.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Reads a whole expression.
pub(super) fn parse(source: &str) -> Result<Node, BadExpression> {
    if source.len() > limits::EXPRESSION {
        return Err(BadExpression::whole(format!(
            "the expression has {} bytes; {} are allowed",
            source.len(),
            limits::EXPRESSION
        )));
    }
    let mut parser = Parser { source, tokens: lex(source)?, next: 0, nesting: 0 };
    let root = parser.expression()?;
    match parser.peek().kind {
        TokenKind::End => Ok(root),
        _ => Err(parser.unexpected("the end of the expression")),
    }
}

struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Token<'s>>,
    next: usize,
    nesting: usize,
}

type Parsed<T = Node> = Result<T, BadExpression>;

impl<'s> Parser<'s> {
    fn peek(&self) -> &Token<'s> {
        // The last token is the end, which is never passed.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token<'s> {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.peek().kind, TokenKind::Mark(found) if found == mark)
    }

    /// The place of the mark, when it is next.
    fn eat(&mut self, mark: &str) -> Option<u32> {
        self.is(mark).then(|| place(&self.take()))
    }

    fn expect(&mut self, mark: &str) -> Parsed<u32> {
        self.eat(mark).ok_or_else(|| self.unexpected(&format!("'{mark}'")))
    }

    fn unexpected(&self, wanted: &str) -> BadExpression {
        let found = match &self.peek().kind {
            TokenKind::End => "the expression ends".into(),
            TokenKind::Mark(mark) => format!("'{mark}' stands"),
            TokenKind::Name(name) => format!("'{name}' stands"),
            TokenKind::Int(_) | TokenKind::Uint(_) | TokenKind::Double(_) => "a number stands".into(),
            TokenKind::Text(_) | TokenKind::Bytes(_) => "a text stands".into(),
        };
        self.bad(place(self.peek()), format!("{found} where {wanted} is expected"))
    }

    fn bad(&self, at: u32, message: impl Into<String>) -> BadExpression {
        BadExpression::at(self.source, at as usize, message)
    }

    /// Refuses a tree that would take too much stack.
    fn node(&self, node: Node) -> Parsed {
        if node.depth > limits::DEPTH {
            return Err(self.bad(node.at, format!("the expression is nested deeper than {}", limits::DEPTH)));
        }
        Ok(node)
    }

    fn expression(&mut self) -> Parsed {
        self.nesting += 1;
        if self.nesting > limits::NESTING {
            let message = format!("the expression is nested deeper than {}", limits::NESTING);
            return Err(self.bad(place(self.peek()), message));
        }
        let mut node = self.logical("||")?;
        if let Some(at) = self.eat("?") {
            let then = self.logical("||")?;
            self.expect(":")?;
            let other = self.expression()?;
            node = self.node(Node::new(at, Kind::If(Box::new([node, then, other]))))?;
        }
        self.nesting -= 1;
        Ok(node)
    }

    fn logical(&mut self, operator: &'static str) -> Parsed {
        let inner = |parser: &mut Self| if operator == "||" { parser.logical("&&") } else { parser.binary(0) };
        let first = inner(self)?;
        let Some(at) = self.eat(operator) else { return Ok(first) };
        let mut nodes = vec![first, inner(self)?];
        while self.eat(operator).is_some() {
            nodes.push(inner(self)?);
        }
        self.node(Node::new(at, if operator == "||" { Kind::Or(nodes) } else { Kind::And(nodes) }))
    }

    /// Comparisons, sums and products, each binding closer than the one before.
    fn binary(&mut self, level: usize) -> Parsed {
        const LEVELS: [&[(&str, &str)]; 3] = [
            &[
                ("<", "_<_"),
                ("<=", "_<=_"),
                (">=", "_>=_"),
                (">", "_>_"),
                ("==", "_==_"),
                ("!=", "_!=_"),
                ("in", "@in"),
            ],
            &[("+", "_+_"), ("-", "_-_")],
            &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
        ];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut node = self.binary(level + 1)?;
        while let TokenKind::Mark(mark) = self.peek().kind {
            let Some((_, name)) = operators.iter().find(|(operator, _)| *operator == mark) else { break };
            let at = place(&self.take());
            let right = self.binary(level + 1)?;
            node = self.node(Node::call(at, *name, false, vec![node, right]))?;
        }
        Ok(node)
    }

    fn unary(&mut self) -> Parsed {
        let (mark, name) = match self.peek().kind {
            TokenKind::Mark("!") => ("!", "!_"),
            TokenKind::Mark("-") => ("-", "-_"),
            _ => return self.member(),
        };
        let at = place(self.peek());
        let mut odd = false;
        while self.is(mark) && !self.negative_number() {
            self.take();
            odd = !odd;
        }
        let operand = self.member()?;
        if odd { self.node(Node::call(at, name, false, vec![operand])) } else { Ok(operand) }
    }

    /// Whether a minus is next that belongs to a number.
    fn negative_number(&self) -> bool {
        let number = self.tokens.get(self.next + 1).map(|token| &token.kind);
        self.is("-") && matches!(number, Some(TokenKind::Int(_) | TokenKind::Double(_)))
    }

    fn member(&mut self) -> Parsed {
        let mut node = self.primary()?;
        loop {
            let next = if let Some(at) = self.eat(".") {
                let optional = self.eat("?").is_some();
                let name = self.name("the name of a field")?;
                if !optional && self.is("(") {
                    self.member_call(node, name)?
                } else {
                    let field = Key::String(name.into());
                    Node::new(at, Kind::Select { operand: Box::new(node), field, optional })
                }
            } else if let Some(at) = self.eat("[") {
                let optional = self.eat("?").is_some();
                let index = Box::new(self.expression()?);
                self.expect("]")?;
                Node::new(at, Kind::Index { operand: Box::new(node), index, optional })
            } else if self.is("{") && node.qualified_name().is_some() {
                return Err(self.bad(place(self.peek()), "messages can't be written here"));
            } else {
                return Ok(node);
            };
            node = self.node(next)?;
        }
    }

    fn name(&mut self, wanted: &str) -> Parsed<&'s str> {
        match self.peek().kind {
            TokenKind::Name(name) => {
                self.take();
                Ok(name)
            }
            _ => Err(self.unexpected(wanted)),
        }
    }

    fn member_call(&mut self, target: Node, name: &str) -> Parsed {
        let at = self.expect("(")?;
        let mut args = self.arguments()?;
        let Some(kind) = MacroKind::of(name, args.len()) else {
            args.insert(0, target);
            return Ok(Node::call(at, name, true, args));
        };
        let mut args = args.into_iter();
        let variable = args.next().map(|node| (node.at, node.kind));
        let (condition, body) = match (args.next(), args.next()) {
            (Some(condition), Some(body)) => (Some(condition), body),
            (Some(body), None) => (None, body),
            _ => return Err(self.bad(at, format!("{name}() lacks an argument"))),
        };
        let variable = match variable {
            Some((_, Kind::Name(variable))) if !variable.starts_with('.') => variable,
            other => {
                let at = other.map_or(at, |(at, _)| at);
                return Err(self.bad(at, format!("the first argument of {name}() must be a simple name")));
            }
        };
        Ok(Node::new(at, Kind::Macro(Box::new(Macro { kind, range: target, variable, condition, body }))))
    }

    /// What stands between parentheses; the opening one was taken.
    fn arguments(&mut self) -> Parsed<Vec<Node>> {
        let mut args = Vec::new();
        if self.eat(")").is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expression()?);
            if self.eat(",").is_none() {
                break;
            }
        }
        self.expect(")")?;
        Ok(args)
    }

    fn primary(&mut self) -> Parsed {
        let at = place(self.peek());
        if self.negative_number() {
            self.take();
            return self.number(at, "-");
        }
        let literal = match &self.peek().kind {
            TokenKind::Int(_) | TokenKind::Uint(_) | TokenKind::Double(_) => return self.number(at, ""),
            TokenKind::Name(_) => return self.named(at, ""),
            TokenKind::Mark(".") => {
                self.take();
                return self.named(at, ".");
            }
            TokenKind::Mark("(") => {
                self.take();
                let node = self.expression()?;
                self.expect(")")?;
                return Ok(node);
            }
            TokenKind::Mark("[") => return self.list(at),
            TokenKind::Mark("{") => return self.map(at),
            TokenKind::Text(text) => Value::from(text.as_str()),
            TokenKind::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
            TokenKind::Mark("true") => Value::Bool(true),
            TokenKind::Mark("false") => Value::Bool(false),
            TokenKind::Mark("null") => Value::Null,
            _ => return Err(self.unexpected("a value")),
        };
        self.take();
        Ok(Node::new(at, Kind::Literal(literal)))
    }

    fn number(&mut self, at: u32, sign: &str) -> Parsed {
        let radix = |digits: &str| digits.strip_prefix("0x").map_or((digits.to_owned(), 10), |hex| (hex.into(), 16));
        let value = match self.take().kind {
            TokenKind::Int(digits) => {
                let (digits, radix) = radix(digits);
                i64::from_str_radix(&format!("{sign}{digits}"), radix).map(Value::Int).ok()
            }
            TokenKind::Uint(digits) => {
                let (digits, radix) = radix(digits);
                u64::from_str_radix(&digits, radix).map(Value::Uint).ok()
            }
            TokenKind::Double(text) => {
                format!("{sign}{text}").parse().ok().filter(|n: &f64| n.is_finite()).map(Value::Double)
            }
            _ => None,
        };
        let value = value.ok_or_else(|| self.bad(at, "this number is out of range"))?;
        Ok(Node::new(at, Kind::Literal(value)))
    }

    fn named(&mut self, at: u32, dot: &str) -> Parsed {
        let name = self.name("a name")?;
        if RESERVED.contains(&name) {
            return Err(self.bad(at, format!("'{name}' is a reserved word")));
        }
        if !self.is("(") {
            return Ok(Node::new(at, Kind::Name(format!("{dot}{name}"))));
        }
        let at = self.expect("(")?;
        let mut args = self.arguments()?;
        if name != "has" || args.len() != 1 {
            return Ok(Node::call(at, name, false, args));
        }
        let arg = args.remove(0);
        match arg.kind {
            Kind::Select { operand, field, optional: false } => Ok(Node::new(at, Kind::Has { operand, field })),
            _ => Err(self.bad(arg.at, "has() takes a field, as in has(object.field)")),
        }
    }

    fn list(&mut self, at: u32) -> Parsed {
        let mut elements = Vec::new();
        self.separated("[", "]", |parser| {
            let optional = parser.eat("?").is_some();
            elements.push(Element { value: parser.expression()?, optional });
            Ok(())
        })?;
        self.node(Node::new(at, Kind::List(elements)))
    }

    fn map(&mut self, at: u32) -> Parsed {
        let mut entries = Vec::new();
        self.separated("{", "}", |parser| {
            let optional = parser.eat("?").is_some();
            let key = parser.expression()?;
            parser.expect(":")?;
            entries.push(Entry { key, value: parser.expression()?, optional });
            Ok(())
        })?;
        self.node(Node::new(at, Kind::Map(entries)))
    }

    /// Items with commas between them; one may follow the last, or stand alone.
    fn separated(&mut self, open: &str, close: &str, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.expect(open)?;
        if self.eat(",").is_none() {
            while !self.is(close) {
                item(self)?;
                if self.eat(",").is_none() {
                    break;
                }
            }
        }
        self.expect(close)?;
        Ok(())
    }
}

fn place(token: &Token<'_>) -> u32 {
    u32::try_from(token.at).unwrap_or(u32::MAX)
}
