//! The static checker: what every name stands for, which variants of a function its arguments allow, and the type of
//! the whole. It decides as cel-go's does, so that what is refused there when an object is reconciled is refused here.

use super::{
    BadExpression,
    ast::{Call, Element, Entry, Kind, Macro, MacroKind, Node},
    eval::explain,
    fault::Meter,
    functions::{self, Function, Run, format},
    limits, regex,
    suggest::nearest,
    types::{Bindings, Ty},
    value::Value,
};

type Checked<T = Ty> = Result<T, BadExpression>;

/// Checks the tree, fills in what its names stand for, and answers with its type.
pub(super) fn check(source: &str, root: &mut Node, variables: &[(&str, Ty)]) -> Checked {
    let scope: Vec<_> = variables.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect();
    let mut checker = Checker {
        source,
        bindings: Bindings::default(),
        declared: scope.len(),
        scope,
        literals: Vec::new(),
        in_format: 0,
        last_list: Vec::new(),
        patterns: 0,
    };
    let result = checker.check(root)?;
    checker.homogeneous()?;
    checker.settled(root.at, &result)
}

struct Checker<'s> {
    source: &'s str,
    bindings: Bindings,
    /// The declared variables, then those of the macros around.
    scope: Vec<(String, Ty)>,
    declared: usize,
    /// Of every literal list, and of keys and values of every literal map: the types of its items.
    literals: Vec<Vec<(u32, Ty)>>,
    /// Calls of `format` around, whose lists may mix types.
    in_format: usize,
    /// The items of the literal list that was checked last.
    last_list: Vec<(u32, Ty)>,
    /// Literal patterns so far.
    patterns: usize,
}

impl Checker<'_> {
    fn bad(&self, at: u32, message: impl Into<String>) -> BadExpression {
        BadExpression::at(self.source, at as usize, message)
    }

    fn resolved(&self, at: u32, ty: &Ty) -> Checked {
        self.bindings.resolve(ty).ok_or_else(|| self.bad(at, "the type of this expression is too large"))
    }

    fn settled(&self, at: u32, ty: &Ty) -> Checked {
        self.bindings.settle(ty).ok_or_else(|| self.bad(at, "the type of this expression is too large"))
    }

    fn check(&mut self, node: &mut Node) -> Checked {
        let at = node.at;
        if let Some(ty) = named_type(node).filter(|_| !self.shadowed(node)) {
            node.kind = Kind::Literal(Value::Type(ty.1));
            return Ok(Ty::of_type(ty.0));
        }
        let ty = match &mut node.kind {
            Kind::Literal(value) => literal(value),
            Kind::Name(name) => {
                let (slot, ty) = self.variable(at, name)?;
                node.kind = Kind::Variable(slot);
                ty
            }
            Kind::Variable(slot) => self.scope.get(*slot).map_or(Ty::Dyn, |(_, ty)| ty.clone()),
            Kind::Select { operand, optional, .. } => {
                let optional = *optional;
                self.select(at, operand, optional)?
            }
            Kind::Has { operand, .. } => {
                self.select(at, operand, false)?;
                Ty::Bool
            }
            Kind::Index { operand, index, optional } => {
                let name = if *optional { "_[?_]" } else { "_[_]" };
                let args = vec![self.check(operand)?, self.check(index)?];
                self.operator(at, name, &args)?
            }
            Kind::List(elements) => self.list(elements)?,
            Kind::Map(entries) => self.map(entries)?,
            Kind::And(nodes) | Kind::Or(nodes) => {
                for node in nodes {
                    self.condition(node)?;
                }
                Ty::Bool
            }
            Kind::If(nodes) => {
                let args = nodes.iter_mut().map(|node| self.check(node)).collect::<Checked<Vec<_>>>()?;
                self.operator(at, "_?_:_", &args)?
            }
            Kind::Call(call) => {
                let (ty, constant) = self.call(at, call)?;
                if let Some(value) = constant {
                    node.kind = Kind::Literal(value);
                }
                ty
            }
            Kind::Macro(folded) => self.fold(folded)?,
        };
        self.resolved(at, &ty)
    }

    fn shadowed(&self, node: &Node) -> bool {
        matches!(&node.kind, Kind::Name(name) if self.scope.iter().any(|(known, _)| known == name))
    }

    fn variable(&self, at: u32, name: &str) -> Checked<(usize, Ty)> {
        // A dot before the name passes over the macros' variables.
        let (name, visible) = match name.strip_prefix('.') {
            Some(name) => (name, self.declared),
            None => (name, self.scope.len()),
        };
        let found = self.scope[..visible].iter().rposition(|(known, _)| known == name);
        if let Some(slot) = found {
            return Ok((slot, self.scope[slot].1.clone()));
        }
        let known: Vec<_> = self.scope.iter().map(|(name, _)| name.as_str()).collect();
        let known = if known.is_empty() { "no variables".into() } else { known.join(", ") };
        Err(self.bad(at, format!("undeclared reference to '{name}' (declared: {known})")))
    }

    fn select(&mut self, at: u32, operand: &mut Node, optional: bool) -> Checked {
        let operand = self.check(operand)?;
        let (target, inside) = match &operand {
            Ty::Optional(inner) => (&**inner, true),
            other => (other, false),
        };
        let field = match target {
            Ty::Map(pair) => pair.1.clone(),
            Ty::Dyn => Ty::Dyn,
            Ty::Free(_) => {
                self.bindings.agree([(&Ty::Dyn, target)]);
                Ty::Dyn
            }
            other => return Err(self.bad(at, format!("type '{other}' does not support field selection"))),
        };
        Ok(if inside || optional { Ty::optional(field) } else { field })
    }

    fn condition(&mut self, node: &mut Node) -> Checked<()> {
        let ty = self.check(node)?;
        if self.bindings.agree([(&ty, &Ty::Bool)]) {
            return Ok(());
        }
        Err(self.bad(node.at, format!("expected type 'bool' but found '{ty}'")))
    }

    /// The type that a literal's items join to, and each item's own for [`Self::homogeneous`].
    fn join(&mut self, joined: Option<Ty>, item: &Ty) -> Ty {
        match joined {
            None => item.clone(),
            Some(joined) if self.bindings.agree([(&joined, item)]) => joined.most_general(item.clone()),
            Some(_) => Ty::Dyn,
        }
    }

    /// The type of an item, which must be an optional when a question mark stands before it.
    fn item(&mut self, node: &mut Node, optional: bool) -> Checked {
        let ty = self.check(node)?;
        match ty {
            Ty::Optional(inner) if optional => Ok((*inner).clone()),
            Ty::Dyn => Ok(Ty::Dyn),
            ty if optional => Err(self.bad(node.at, format!("expected type 'optional_type({ty})' but found '{ty}'"))),
            ty => Ok(ty),
        }
    }

    fn list(&mut self, elements: &mut [Element]) -> Checked {
        let mut joined = None;
        let mut items = Vec::new();
        for element in elements {
            let ty = self.item(&mut element.value, element.optional)?;
            joined = Some(self.join(joined, &ty));
            items.push((element.value.at, ty));
        }
        self.last_list.clone_from(&items);
        self.remember(items);
        Ok(Ty::list(joined.unwrap_or_else(|| self.bindings.free())))
    }

    fn map(&mut self, entries: &mut [Entry]) -> Checked {
        let (mut joined_key, mut joined_value) = (None, None);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for entry in entries {
            let key = self.item(&mut entry.key, false)?;
            joined_key = Some(self.join(joined_key, &key));
            keys.push((entry.key.at, key));
            let value = self.item(&mut entry.value, entry.optional)?;
            joined_value = Some(self.join(joined_value, &value));
            values.push((entry.value.at, value));
        }
        self.remember(keys);
        self.remember(values);
        let key = joined_key.unwrap_or_else(|| self.bindings.free());
        Ok(Ty::map(key, joined_value.unwrap_or_else(|| self.bindings.free())))
    }

    fn remember(&mut self, items: Vec<(u32, Ty)>) {
        if self.in_format == 0 && items.len() > 1 {
            self.literals.push(items);
        }
    }

    /// Refuses lists and maps that mix types, once all types are known.
    fn homogeneous(&self) -> Checked<()> {
        for items in &self.literals {
            let mut first: Option<Ty> = None;
            for (at, ty) in items {
                let ty = self.settled(*at, ty)?;
                match &first {
                    None => first = Some(ty),
                    Some(first) if *first != ty => {
                        return Err(self.bad(*at, format!("expected type '{first}' but found '{ty}'")));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn operator(&mut self, at: u32, name: &str, args: &[Ty]) -> Checked {
        match functions::named(name) {
            Some(function) => self.overload(at, function, false, args),
            None => Err(self.bad(at, format!("undeclared reference to '{name}'"))),
        }
    }

    /// The type of a call; and its value, when it's a conversion of a literal.
    fn call(&mut self, at: u32, call: &mut Call) -> Checked<(Ty, Option<Value>)> {
        if call.member
            && let Some(name) = call.args[0].qualified_name()
            && let Some(function) = functions::named(&format!("{}.{}", name.trim_start_matches('.'), call.name))
        {
            call.args.remove(0);
            call.member = false;
            call.name = function.name.to_owned();
        }
        let Some(function) = functions::named(&call.name) else { return Err(self.no_function(at, call)) };
        let format = usize::from(function.name == "format");
        self.in_format += format;
        let args = call.args.iter_mut().map(|node| self.check(node)).collect::<Checked<Vec<_>>>()?;
        self.in_format -= format;
        let ty = self.overload(at, function, call.member, &args)?;
        call.function = Some(function);
        Ok((ty, self.literal_arguments(function, call)?))
    }

    fn no_function(&self, at: u32, call: &Call) -> BadExpression {
        let name = match call.args.first().filter(|_| call.member).and_then(Node::qualified_name) {
            // Not a variable's method, but a function of a group that doesn't exist.
            Some(group) if !self.scope.iter().any(|(name, _)| group.split('.').next() == Some(name)) => {
                format!("{group}.{}", call.name)
            }
            _ => call.name.clone(),
        };
        let known = functions::all().map(|function| function.name);
        let macros = ["has", "all", "exists", "exists_one", "map", "filter", "optMap", "optFlatMap"];
        let hint = match macros.iter().find(|known| **known == name) {
            Some(_) if name == "has" => "; write has(object.field)".into(),
            Some(name) => format!("; write list.{name}(variable, expression)"),
            None => nearest(&name, known.chain(macros))
                .map_or_else(String::new, |near| format!("; is {near}() what you mean?")),
        };
        self.bad(at, format!("undeclared reference to '{name}': there is no such function{hint}"))
    }

    fn overload(&mut self, at: u32, function: &Function, member: bool, args: &[Ty]) -> Checked {
        let mut result: Option<Ty> = None;
        for overload in function.overloads.iter().filter(|overload| overload.member == member) {
            if overload.args.len() != args.len() {
                continue;
            }
            let mut letters = [None, None];
            let wanted: Vec<_> =
                overload.args.iter().map(|sig| sig.instantiate(&mut letters, &mut self.bindings)).collect();
            if !self.bindings.agree(args.iter().zip(&wanted)) {
                continue;
            }
            let ty = overload.result.instantiate(&mut letters, &mut self.bindings);
            let ty = self.resolved(at, &ty)?;
            result = Some(match result {
                Some(other) if other != ty => Ty::Dyn,
                _ => ty,
            });
        }
        result.map_or_else(|| Err(self.no_overload(at, function, member, args)), Ok)
    }

    fn no_overload(&self, at: u32, function: &Function, member: bool, args: &[Ty]) -> BadExpression {
        let args: Vec<_> = args.iter().map(|ty| self.settled(at, ty).unwrap_or(Ty::Dyn).to_string()).collect();
        let applied = match args.split_first() {
            Some((target, args)) if member => format!("{target}.({})", args.join(", ")),
            _ => format!("({})", args.join(", ")),
        };
        self.bad(at, format!("found no matching overload for '{}' applied to '{applied}'", function.name))
    }

    /// What can be found out about a call whose arguments are literals.
    fn literal_arguments(&mut self, function: &Function, call: &mut Call) -> Checked<Option<Value>> {
        match (&function.run, call.args.as_slice()) {
            (Run::Conversion(run), [Node { at, kind: Kind::Literal(value), .. }]) => {
                let args = std::slice::from_ref(value);
                let value = run(&mut Meter::new(), args).map_err(|fault| explain(fault, function, args));
                return value.map(Some).map_err(|fault| self.bad(*at, fault.message));
            }
            (Run::Matches, [_, Node { at, kind: Kind::Literal(Value::String(pattern)), .. }]) => {
                self.patterns += 1;
                if self.patterns > limits::PATTERNS {
                    let message = format!("more than {} regular expressions", limits::PATTERNS);
                    return Err(self.bad(*at, message));
                }
                let compiled = regex::compile(pattern);
                call.pattern =
                    Some(compiled.map_err(|reason| self.bad(*at, format!("bad regular expression: {reason}")))?);
            }
            (Run::Values(_), [Node { at, kind: Kind::Literal(Value::String(text)), .. }, list])
                if function.name == "format" =>
            {
                let pieces = format::pieces(text).map_err(|reason| self.bad(*at, format!("bad format: {reason}")))?;
                if let Kind::List(elements) = &list.kind
                    && !elements.iter().any(|element| element.optional)
                {
                    self.format_values(list.at, &pieces)?;
                }
            }
            _ => {}
        }
        Ok(None)
    }

    /// Whether a literal list, the one checked last, holds what the clauses of a literal format take.
    fn format_values(&self, at: u32, pieces: &[format::Piece<'_>]) -> Checked<()> {
        let clauses: Vec<char> = pieces.iter().filter_map(format::Piece::letter).collect();
        if clauses.len() != self.last_list.len() {
            let (wanted, given) = (clauses.len(), self.last_list.len());
            let message =
                format!("wrong number of arguments supplied to string.format (expected {wanted}, got {given})");
            return Err(self.bad(at, message));
        }
        for (letter, (at, ty)) in clauses.into_iter().zip(&self.last_list) {
            let ty = self.settled(*at, ty)?;
            if !format::takes(letter, &ty) {
                return Err(self.bad(*at, format::refusal(letter, &ty.to_string())));
            }
        }
        Ok(())
    }

    fn fold(&mut self, folded: &mut Macro) -> Checked {
        let range = self.check(&mut folded.range)?;
        let at = folded.range.at;
        let optional = matches!(folded.kind, MacroKind::OptMap | MacroKind::OptFlatMap);
        let item = match &range {
            Ty::Optional(inner) if optional => (**inner).clone(),
            Ty::List(element) if !optional => (**element).clone(),
            Ty::Map(pair) if !optional => pair.0.clone(),
            // What value() makes of it, whose first use decides.
            Ty::Dyn | Ty::Null if optional => self.bindings.free(),
            Ty::Dyn => Ty::Dyn,
            Ty::Free(_) => {
                self.bindings.agree([(&Ty::Dyn, &range)]);
                Ty::Dyn
            }
            other if optional => return Err(self.bad(at, format!("expected an optional but found '{other}'"))),
            other => {
                return Err(self.bad(
                    at,
                    format!(
                        "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    ),
                ));
            }
        };
        self.scope.push((folded.variable.clone(), item.clone()));
        let result = self.body(folded, item);
        self.scope.pop();
        result
    }

    fn body(&mut self, folded: &mut Macro, item: Ty) -> Checked {
        if let Some(condition) = &mut folded.condition {
            self.condition(condition)?;
        }
        match folded.kind {
            MacroKind::All | MacroKind::Exists | MacroKind::ExistsOne => {
                self.condition(&mut folded.body)?;
                Ok(Ty::Bool)
            }
            MacroKind::Filter => {
                self.condition(&mut folded.body)?;
                Ok(Ty::list(item))
            }
            MacroKind::Map => Ok(Ty::list(self.check(&mut folded.body)?)),
            MacroKind::OptMap => Ok(Ty::optional(self.check(&mut folded.body)?)),
            MacroKind::OptFlatMap => {
                let at = folded.body.at;
                let body = self.check(&mut folded.body)?;
                // The macro stands for `range.hasValue() ? body : optional.none()`.
                let none = Ty::optional(self.bindings.free());
                let expanded = self.operator(at, "_?_:_", &[Ty::Bool, body.clone(), none]);
                expanded.map_err(|_| self.bad(at, format!("expected an optional but found '{body}'")))
            }
        }
    }
}

/// The type that a name stands for, and its own name.
fn named_type(node: &Node) -> Option<(Ty, &'static str)> {
    if !matches!(node.kind, Kind::Name(_) | Kind::Select { .. }) {
        return None;
    }
    let name = node.qualified_name()?;
    Some(match name.trim_start_matches('.') {
        "bool" => (Ty::Bool, "bool"),
        "bytes" => (Ty::Bytes, "bytes"),
        "double" => (Ty::Double, "double"),
        "int" => (Ty::Int, "int"),
        "uint" => (Ty::Uint, "uint"),
        "string" => (Ty::String, "string"),
        "null_type" => (Ty::Null, "null_type"),
        "list" => (Ty::list(Ty::Dyn), "list"),
        "map" => (Ty::map(Ty::Dyn, Ty::Dyn), "map"),
        "optional_type" => (Ty::optional(Ty::Dyn), "optional_type"),
        "type" => (Ty::of_type(Ty::Dyn), "type"),
        "google.protobuf.Timestamp" => (Ty::Timestamp, "google.protobuf.Timestamp"),
        "google.protobuf.Duration" => (Ty::Duration, "google.protobuf.Duration"),
        _ => return None,
    })
}

fn literal(value: &Value) -> Ty {
    match value {
        Value::Null => Ty::Null,
        Value::Bool(_) => Ty::Bool,
        Value::Int(_) => Ty::Int,
        Value::Uint(_) => Ty::Uint,
        Value::Double(_) => Ty::Double,
        Value::String(_) => Ty::String,
        Value::Bytes(_) => Ty::Bytes,
        Value::Timestamp(_) => Ty::Timestamp,
        Value::Duration(_) => Ty::Duration,
        // The parser makes no others.
        _ => Ty::Dyn,
    }
}
